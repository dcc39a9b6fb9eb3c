"""The data of a trained run again, cut as they were, or other pictures under its class names."""

import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from headstart.data import splits
from headstart.data.module import DataModule
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)
SPLIT_FILE = "split.csv"


def run_of(path: Path) -> Path | None:
    """The run directory that a checkpoint lies in; None for one that somebody has put elsewhere."""
    home = path.parent.parent
    return home if (home / SPLIT_FILE).is_file() else None


def data_config(trained: DictConfig, given: DictConfig, home: Path | None) -> DictConfig:
    """The `data` of a run's config, with what is given instead.

    Args:
        trained: the config of the run.
        given: what is to be different, such as `root`; null: nothing.
        home: the run directory, or None where there is none.
    """
    config = OmegaConf.merge(trained.data, {key: value for key, value in given.items() if value is not None})
    if given.root is None:
        config.split_file = str(home / SPLIT_FILE) if home else None
    else:  # how the run cut its own pictures does not apply to others
        config.update({"split_file": None, "val_fraction": 0, "test_fraction": 0, "train_fraction": 1})
        config.update({"shots_per_class": None, "fold": None, "num_folds": None})
    return config


def load_data(
    config: DictConfig, task: ClassificationTask, split: str, home: Path | None = None, download: bool = True
) -> DataModule:
    """The data, connected to a trained task, under its class map.

    Pictures that lie in class folders alone are all of `split`. But where a run's own pictures lie in another place
    they stay cut as they were, or the model would be judged by what it has learned from.

    Args:
        config: of the data.
        task: the trained one.
        split: the one that is asked for.
        home: the run directory, to recognise its own pictures.
        download: whether data that are not there may be fetched.
    """
    data = instantiate(config, classes=task.classes)
    if download:
        data.prepare_data()
    data.setup("test")
    data.connect(task.backbone.preprocess, task.backbone.preprocess)
    if config.split_file is not None or (home and _cut_as_before(data, home / SPLIT_FILE)):
        return data
    full = [name for name in splits.SPLITS if data.num_samples[name]]
    if not data.num_samples[split] and len(full) == 1:
        data.splits = {name: data.splits[full[0]] if name == split else [] for name in splits.SPLITS}
    if home:
        _warn_of_known(data, split, home / SPLIT_FILE)
    return data


def _cut_as_before(data: DataModule, file: Path) -> bool:
    """Whether all the pictures of the run are among these, by their names; then they are cut as they were."""
    if not splits.assignment(file).keys() <= set(data.samples.names):
        return False
    log.info("data.root holds all pictures of the run: they stay in the splits they were in")
    data.splits = splits.read(file, data.samples)
    return True


def _warn_of_known(data: DataModule, split: str, file: Path) -> None:
    learned = {name for name, where in splits.assignment(file).items() if where == "train"}
    shared = [name for index in data.splits[split] if (name := data.samples.names[index]) in learned]
    if shared:
        log.warning(
            "%d of %d samples have the names of pictures that the run learned from, the first is %s: if they are the "
            "same ones, scores will mislead",
            *(len(shared), data.num_samples[split], shared[0]),
        )
