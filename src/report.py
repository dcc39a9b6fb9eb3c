"""One page about a trained run that needs nothing else to be read, and a model card.

python src/report.py run=logs/train/runs/<date>                        report.html and MODEL_CARD.md in the run
python src/report.py run=last examples=0 worst=0                       the same without any picture of the data
"""

import hydra
from omegaconf import DictConfig

from headstart.cli import choices, resolvers
from headstart.cli import run as cli
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="report")
def main(cfg: DictConfig) -> None:
    """Prints where the two files are."""
    choices.check_report(cfg)
    path = find_checkpoint(cfg.run, "best", cfg.logs)
    # imported here: `--help` and a misspelt word are answered without loading torch and Lightning
    from headstart.report.build import report

    for file in report(cfg, path):
        print(file)


if __name__ == "__main__":
    cli.run(main, "report")
