"""Makes one file of a trained run that works without Headstart, and checks it against the checkpoint.

python src/export.py run=logs/train/runs/<date> format=onnx                  for onnxruntime, any language
python src/export.py run=<run> format=onnx quantize=int8                     a quarter of the size
python src/export.py run=<run> format=torch_export                           for torch; also torchscript, safetensors
"""

import sys

import hydra
from omegaconf import DictConfig

from headstart.cli import choices, resolvers
from headstart.cli import run as cli
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="export")
def main(cfg: DictConfig) -> None:
    """Prints what was measured; leaves with 1, and without a file, when it is not what the checkpoint gives."""
    choices.check_export(cfg)
    path = find_checkpoint(cfg.run, cfg.checkpoint, cfg.logs)
    # imported here: `--help` and a misspelt word are answered without loading torch and Lightning
    from headstart.export.export import ExportFailed, export

    try:
        with cli.terminated_as_interrupted():
            export(cfg, path)
    except ExportFailed as failure:
        sys.stderr.write(f"\nerror: {failure}. Nothing was written\n")
        sys.exit(cli.FAILURE)


if __name__ == "__main__":
    cli.run(main, "export")
