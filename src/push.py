"""Uploads a trained run to the Hugging Face hub, after a list of all files and of what in them is about this machine.

python src/push.py run=logs/train/runs/<date> repo=<you>/<model>              lists, and asks or stops
python src/push.py run=last repo=<you>/<model> confirm=true                   uploads
"""

import hydra
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.cli.run import run_entry_point
from headstart.cli.schemas import check_push
from headstart.runs.directory import find_checkpoint

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="push")
def main(cfg: DictConfig) -> None:
    """Prints the list, then the address of the uploaded model."""
    check_push(cfg)
    checkpoint = find_checkpoint(cfg.run, "best", cfg.logs)
    # imported here, so that `--help` and a mistake are answered without loading torch and Lightning
    from headstart.report.push import push

    print(push(cfg, checkpoint))


if __name__ == "__main__":
    run_entry_point(main, "push")
