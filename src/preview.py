"""Shows what a training with the same words would see, in seconds and without training.

python src/preview.py model=resnet50 data=image_folder data.root=my/pictures     pictures as the network gets them
python src/preview.py model=resnet50 data=image_folder data.root=my/pictures augmentation=affine
python src/preview.py data=text_table data.root=reviews.csv model=distilbert        texts, tokens, what is cut off

It is not called inspect.py: a script's folder comes first in Python's search path, so `import inspect` of every library
that src/train.py loads would find this file in place of Python's own module.
"""

import sys

import hydra
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.check import check_config
from headstart.cli.conf_files import CONF
from headstart.cli.quick_check import check_without_imports
from headstart.cli.run import USAGE, announce_loading, run_entry_point
from headstart.cli.train_help import answering_help
from headstart.errors import UsageError
from headstart.files import relative_to_cwd

resolvers.register()
NO_RUN = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=[stdout,to_stderr]"]
"""Hydra makes no folder and no log file."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> None:
    """Prints the classes, their samples and sizes; shows some samples before and after augmentation."""
    if cfg.resume is not None:
        raise UsageError("a preview is of a new training: leave resume out")
    check_without_imports(cfg)
    announce_loading()
    check_config(cfg)
    # imported here, so that a mistake is answered without loading torch and Lightning
    from headstart.training.preview import preview

    if file := preview(cfg):
        print(relative_to_cwd(file))


if __name__ == "__main__":
    if {"-m", "--multirun"} & set(sys.argv):
        print("error: a preview is of one training: leave -m out", file=sys.stderr)
        sys.exit(USAGE)
    sys.argv += NO_RUN
    run_entry_point(answering_help(main), "train")
