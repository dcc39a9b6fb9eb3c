"""Measures how good a trained run is, and shows where it fails and why; needs only its directory or checkpoint.

python src/evaluate.py run=logs/train/runs/<date>                      the test split of the run
python src/evaluate.py run=last split=val explain=8                    what led to the 8 worst mistakes
python src/evaluate.py run=<run> data.root=other/pictures              another data set with the same class names
"""

import sys

import hydra
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.cli.run import announce_loading, run_entry_point
from headstart.cli.settings import check_settings
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Prints each metric, outside a terminal as `name: value`; tables and figures go into `evaluation_<split>`."""
    check_settings(cfg)
    checkpoint = find_checkpoint(cfg.run, cfg.checkpoint, cfg.logs)
    # imported here, so that `--help` and a mistake are answered without loading torch and Lightning
    announce_loading()
    from headstart.display.tables import print_metrics
    from headstart.evaluation.evaluate import evaluate

    metrics = evaluate(cfg, checkpoint)
    if not sys.stdout.isatty():  # in a terminal there is a table with intervals
        print_metrics(metrics)


if __name__ == "__main__":
    run_entry_point(main, "evaluate")
