"""Writes a report page about a trained run, as one file, and a model card.

python src/report.py run=logs/train/runs/<date>                        report.html and MODEL_CARD.md in the run
python src/report.py run=last examples=0 worst=0                       the same without samples of the data
"""

import hydra
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.cli.run import announce_loading, run_entry_point
from headstart.cli.settings import check_settings
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="report")
def main(cfg: DictConfig) -> None:
    """Prints where the two files are."""
    check_settings(cfg)
    checkpoint = find_checkpoint(cfg.run, "best", cfg.logs)
    # imported here, so that `--help` and a mistake are answered without loading torch and Lightning
    announce_loading()
    from headstart.report.build import report

    for file in report(cfg, checkpoint):
        print(file)


if __name__ == "__main__":
    run_entry_point(main, "report")
