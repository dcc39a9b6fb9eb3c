"""Trains a pretrained backbone with a new head on your data, tests it once, and leaves a run directory.

python src/train.py experiment=letters_to_digits       the demonstration: handwritten digits, offline
python src/train.py model=resnet50 data=cats_dogs      settings chosen from the data
python src/train.py finetuning=full model=resnet50 data=cats_dogs
python src/train.py -m seed=0,1,2 model=resnet18,mobilenet_v2 data=image_folder data.root=my/pictures
python src/train.py resume=last                        continues an interrupted run
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.check import check_config
from headstart.cli.conf_files import CONF
from headstart.cli.quick_check import check_without_imports
from headstart.cli.run import run_entry_point
from headstart.runs.resume import config_to_run

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Returns the best monitored score, which is what a sweep compares."""
    cfg = config_to_run(cfg, HydraConfig.get())
    check_without_imports(cfg)
    check_config(cfg)
    # imported here, so that `--help` and a mistake are answered without loading torch and Lightning
    from headstart.training.run import run

    return run(cfg).score


if __name__ == "__main__":
    run_entry_point(main, "train")
