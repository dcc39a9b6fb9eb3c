"""Predicts the classes of samples in files; needs only the directory or checkpoint of a run.

python src/predict.py run=logs/train/runs/<date> input=my/pictures               a folder, as CSV on standard output
python src/predict.py run=<run> input='photos/*.jpg' output=classes.jsonl
find photos -name '*.jpg' | python src/predict.py run=<run> input=-              file names, one per line
"""

import sys

import hydra
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.cli.run import FAILURE, announce_loading, run_entry_point, terminated_as_interrupted
from headstart.cli.schemas import check_predict
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="predict")
def main(cfg: DictConfig) -> None:
    """Writes one row per file; exits with 1 if no file could be read."""
    check_predict(cfg)
    checkpoint = find_checkpoint(cfg.run, cfg.checkpoint, cfg.logs)
    # imported here, so that `--help` and a mistake are answered without loading torch and Lightning
    announce_loading()
    from headstart.inference.predict import predict

    with terminated_as_interrupted():
        any_readable = predict(cfg, checkpoint)
    if not any_readable:
        sys.exit(FAILURE)


if __name__ == "__main__":
    run_entry_point(main, "predict")
