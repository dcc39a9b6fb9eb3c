"""How good a trained run is, where it fails and why, from nothing but its directory or checkpoint.

python src/evaluate.py run=logs/train/runs/<date>                      the test split of the run
python src/evaluate.py run=last split=val explain=8                    with maps of the 8 worst mistakes
python src/evaluate.py run=<run> data.root=other/pictures              another data set with the same class names
"""

import hydra
from omegaconf import DictConfig

from headstart.cli import choices, resolvers
from headstart.cli import run as cli
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Prints each metric as `name: value`; tables and pictures go into the run's `evaluation_<split>`."""
    choices.check_evaluate(cfg)
    path = find_checkpoint(cfg.run, cfg.checkpoint, cfg.logs)
    # imported here: `--help` and a misspelt word are answered without loading torch and Lightning
    from headstart.evaluation.evaluate import evaluate

    for name, value in evaluate(cfg, path).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    cli.run(main, "evaluate")
