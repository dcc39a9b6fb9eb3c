"""Trains a pretrained backbone with a new head on your data, tests it once, and leaves a run directory.

python src/train.py experiment=letters_to_digits       the demonstration: handwritten digits, offline
python src/train.py model=resnet50 data=cats_dogs      settings chosen from the data
python src/train.py finetuning=full model=resnet50 data=cats_dogs
python src/train.py -m seed=0,1,2 model=resnet18,mobilenet_v2 data=image_folder data.root=my/pictures
python src/train.py resume=last                        continues an interrupted run
python src/train.py resume=logs/train/multiruns/<date> continues a sweep with the jobs that have not ended
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.check import check_config
from headstart.cli.conf_files import CONF
from headstart.cli.overrides import command_line_overrides
from headstart.cli.quick_check import check_without_imports
from headstart.cli.run import announce_loading, run_entry_point
from headstart.cli.train_help import answering_help
from headstart.cli.unfinished_sweep import continue_sweep
from headstart.runs.resume import config_to_run, sweep_to_resume

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Returns the best monitored score, which is what a sweep compares."""
    if sweep := sweep_to_resume(cfg):
        continue_sweep(sweep, cfg, command_line_overrides())
        return None
    cfg = config_to_run(cfg, HydraConfig.get())
    check_without_imports(cfg)
    announce_loading()
    check_config(cfg)
    # imported here, so that `--help` and a mistake are answered without loading torch and Lightning
    from headstart.training.run import run

    return run(cfg).score


if __name__ == "__main__":
    run_entry_point(answering_help(main), "train")
