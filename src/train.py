"""Trains a pretrained backbone with a new head on your data, tests it once, and leaves a run directory.

python src/train.py                                    the embedded default: handwritten digits, offline
python src/train.py model=resnet50 data=cats_dogs
python src/train.py -m seed=0,1,2 model=resnet18,mobilenet_v2 data=image_folder data.root=my/pictures
"""

import hydra
from omegaconf import DictConfig, open_dict

from headstart import cli, config

config.register()


@hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Returns the best monitored score, which is what a sweep compares."""
    config.check_config(cfg)
    # imported here: a mistake in the command is answered before torch and Lightning are loaded
    from headstart.training import train

    result = train(cfg)
    if cfg.compare_scratch and cfg.model.get("weights") is not None:
        scratch = cfg.copy()
        with open_dict(scratch):
            scratch.model.weights = None
            scratch.paths.run = f"{cfg.paths.run}/scratch"
        print("\nThe same network from random weights, on the same samples:")
        reference = train(scratch)
        print(f"\ntransfer against scratch on {result.num_train} labelled samples:")
        for name, value in result.metrics.items():
            print(f"  {name}: {value:.4f} against {reference.metrics[name]:.4f}")
    return result.score


if __name__ == "__main__":
    cli.run(main, "train")
