"""Trains a pretrained backbone with a new head on your data, tests it once, and leaves a run directory.

python src/train.py experiment=letters_to_digits       the demonstration: handwritten digits, offline
python src/train.py model=resnet50 data=cats_dogs      settings chosen by the data
python src/train.py finetuning=full model=resnet50 data=cats_dogs
python src/train.py -m seed=0,1,2 model=resnet18,mobilenet_v2 data=image_folder data.root=my/pictures
python src/train.py resume=last                        goes on with an interrupted run
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from headstart.cli import check as config
from headstart.cli import resolvers
from headstart.cli import run as cli
from headstart.runs.resume import config_to_run

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Returns the best monitored score, which is what a sweep compares."""
    cfg = config_to_run(cfg, HydraConfig.get())
    config.check_config(cfg)
    # imported here: `--help` and a misspelt word are answered without loading torch and Lightning
    from headstart.training import run as training

    return training.run(cfg).score


if __name__ == "__main__":
    cli.run(main, "train")
