"""Names the classes of pictures, from nothing but a run's directory or checkpoint.

python src/predict.py run=logs/train/runs/<date> input=my/pictures               a folder, as CSV on standard output
python src/predict.py run=<run> input='photos/*.jpg' output=classes.jsonl
find photos -name '*.jpg' | python src/predict.py run=<run> input=-              file names, one a line
"""

import sys

import hydra
from omegaconf import DictConfig

from headstart.cli import choices, resolvers
from headstart.cli import run as cli
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="predict")
def main(cfg: DictConfig) -> None:
    """Writes a row a picture; leaves with 1 when none could be read."""
    choices.check_predict(cfg)
    path = find_checkpoint(cfg.run, cfg.checkpoint, cfg.logs)
    # imported here: `--help` and a misspelt word are answered without loading torch and Lightning
    from headstart.inference.predict import predict

    with cli.terminated_as_interrupted():
        found = predict(cfg, path)
    if not found:
        sys.exit(cli.FAILURE)


if __name__ == "__main__":
    cli.run(main, "predict")
