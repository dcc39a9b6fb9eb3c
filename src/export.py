"""Exports a trained run as one file that works without Headstart, and compares it with the checkpoint.

python src/export.py run=logs/train/runs/<date> format=onnx                  for onnxruntime, any language
python src/export.py run=<run> format=onnx quantize=int8                     a quarter of the size
python src/export.py run=<run> format=torch_export                           for torch; also torchscript, safetensors
"""

import hydra
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.cli.run import announce_loading, run_entry_point, terminated_as_interrupted
from headstart.cli.schemas import check_export
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
def main(cfg: DictConfig) -> None:
    """Prints the measurements; if file and checkpoint disagree, exits with 1 and writes no file."""
    check_export(cfg)
    checkpoint = find_checkpoint(cfg.run, cfg.checkpoint, cfg.logs)
    # imported here, so that `--help` and a mistake are answered without loading torch and Lightning
    announce_loading()
    from headstart.export.export import export

    with terminated_as_interrupted():
        export(cfg, checkpoint)


if __name__ == "__main__":
    run_entry_point(main, "export")
