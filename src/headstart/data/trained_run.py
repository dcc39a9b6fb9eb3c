"""The data of a trained run with the same splits as in training, or other samples with the same class names."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from headstart.data.module import DataModule
from headstart.data.split_file import are_all_in, read_rows, read_split_file
from headstart.data.splits import SPLITS
from headstart.errors import UsageError
from headstart.runs.directory import Run

log = logging.getLogger(__name__)
OF_A_TABLE = ("images", "split_column", "group_by")
"""Settings that other data need not share with the data of the run."""


def known_split(run: Run | None) -> Path | None:
    """The file with the splits of a run; None if there is none."""
    return run.split_file if run and run.split_file.is_file() else None


def data_config(trained: DictConfig, changes: DictConfig, run: Run | None) -> DictConfig:
    """The `data` part of a run's config, with changes.

    Args:
        trained: the config of the run.
        changes: values that replace the values of the run, such as `root`; null: no change.
        run: the run; None for a checkpoint outside a run directory.

    Raises:
        UsageError: `data.images` for data that are no table.
    """
    config = OmegaConf.merge(trained.data)
    if changes.root is not None:  # these are about the table of the run
        config.update({key: None for key in OF_A_TABLE if key in config})
    if changes.get("images") is not None and "images" not in config:
        raise UsageError(f"data.images={changes.images} is for data=table, and the data of the run are another kind")
    config = OmegaConf.merge(config, {key: value for key, value in changes.items() if value is not None})
    if changes.root is None:
        split_file = known_split(run)
        config.split_file = None if split_file is None else str(split_file)
    else:  # the splits of the run are for its own samples
        config.update({"split_file": None, "val_fraction": 0, "test_fraction": 0, "train_fraction": 1})
        config.update({"shots_per_class": None, "fold": None, "num_folds": None})
    return config


def load_data(
    config: DictConfig,
    classes: Sequence[str],
    preprocess: Any,
    split: str,
    run: Run | None = None,
    download: bool = True,
) -> DataModule:
    """The data, set up, with the classes and the preprocessing of a trained model.

    If the samples are only in class folders, without split folders, all are used as `split`. But if they are the run's
    own samples in another place, they keep their splits: otherwise the model would be evaluated on training samples.

    Args:
        config: the `data` part of a config.
        classes: names in the order of the model's outputs.
        preprocess: of the model.
        split: the split that will be used.
        run: the run, to recognise its own samples.
        download: whether missing data may be downloaded.
    """
    # in two steps, because what instantiate() gets is a config to it: `${...}` in a class name would be evaluated
    data = instantiate(config, _partial_=True)(classes=list(classes))
    if download:
        data.prepare_data()
    data.setup("test")
    data.connect(preprocess, preprocess)
    known = known_split(run)
    if config.split_file is not None or (known and _keeps_splits(data, known)):
        return data
    full = [name for name in SPLITS if data.num_samples[name]]
    if not data.num_samples[split] and len(full) == 1:
        data.splits = {name: data.splits[full[0]] if name == split else [] for name in SPLITS}
    if known:
        _warn_of_training_samples(data, split, known)
    return data


def _keeps_splits(data: DataModule, file: Path) -> bool:
    """Whether all samples of the run are among these; if so, they get the splits of the run."""
    if not are_all_in(read_rows(file), data.samples):
        return False
    log.info("data.root holds all samples of the run: they keep their splits")
    data.splits = read_split_file(file, data.samples)
    return True


def _warn_of_training_samples(data: DataModule, split: str, file: Path) -> None:
    """Warns of samples that the model was trained on: by content, or by name where contents are not known."""
    trained = [row for row in read_rows(file) if row.split == "train"]
    names, digests = data.samples.names, data.samples.digests
    if digests is not None and all(row.digest for row in trained):
        seen = {row.digest: row.name for row in trained}
        shared = [(names[i], seen[digests[i]]) for i in data.splits[split] if digests[i] in seen]
        if shared:
            log.warning(
                "the model was trained on %d of these %d samples, the first is %s = %s: scores on them mean nothing",
                *(len(shared), data.num_samples[split], *shared[0]),
            )
        return
    known = {row.name for row in trained}
    shared = [names[index] for index in data.splits[split] if names[index] in known]
    if shared:
        log.warning(
            "%d of %d samples have the names of training samples of the run, the first is %s: if they are the same, "
            "the scores mean nothing",
            *(len(shared), data.num_samples[split], shared[0]),
        )
