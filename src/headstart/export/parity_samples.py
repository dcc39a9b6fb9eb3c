"""Validation samples of a run, to compare an export with its checkpoint."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from headstart.data.module import DataModule
from headstart.data.trained_run import data_config, known_split, load_data
from headstart.errors import UsageError
from headstart.inputs.base import Preprocess
from headstart.runs.directory import Run
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParitySamples:
    """Raw samples, as the data set loads them.

    Attributes:
        data: the data of the run; None for generated samples.
        positions: of the samples in `split`; for generated samples, their seeds.
        preprocess: generates samples.
    """

    data: DataModule | None
    positions: list[int]
    preprocess: Preprocess

    @property
    def split(self) -> str | None:
        """The split that the samples are from: val, or train if the run has no val; None: they are generated."""
        if self.data is None:
            return None
        return "val" if self.data.num_samples["val"] else "train"

    @property
    def real(self) -> bool:
        """Whether these are samples of the run, with labels; otherwise they are generated."""
        return self.data is not None

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Any]:
        return self.of(self.split, self.positions) if self.real else map(self.preprocess.raw_example, self.positions)

    def of(self, split: str, positions: list[int]) -> Iterator[Any]:
        """Samples of any split of the data."""
        assert self.data is not None
        assert self.data.samples is not None
        return (self.data.samples.load(self.data.splits[split][position]) for position in positions)

    def targets(self) -> Tensor:
        """The labels of the samples."""
        assert self.data is not None
        return self.data.targets(self.split, self.positions)


def parity_samples(
    trained: DictConfig, given: DictConfig, path: Path, task: ClassificationTask, count: int
) -> ParitySamples:
    """Samples of the run's val split (train, if there is none), evenly spaced; generated ones if it cannot be used.

    Nothing is downloaded.

    Args:
        trained: the config of the run.
        given: settings of `data` that replace those in the config of the run, such as `root`; null: not replaced.
        path: the checkpoint.
        task: the trained task.
        count: largest number of samples.

    Raises:
        UsageError: `given.root` names other data, and they cannot be used.
    """
    preprocess = task.backbone.preprocess
    try:
        data = _val_data(trained, given, path, task)
    except (UsageError, OSError) as error:
        if given.root is not None:
            raise
        log.warning(
            "the data of the run cannot be used (%s): %d GENERATED %ss are compared instead; for real ones give "
            "data.root=<folder>", error, count, preprocess.sample_name,
        )  # fmt: skip
        return ParitySamples(None, list(range(count)), preprocess)
    number = data.num_samples["val"] or data.num_samples["train"]
    return ParitySamples(data, evenly_spaced(number, count), preprocess)


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most `count` positions below `total`, evenly spaced."""
    count = min(count, total)
    return [index * total // count for index in range(count)]


def _val_data(trained: DictConfig, given: DictConfig, path: Path, task: ClassificationTask) -> DataModule:
    run = Run.of(path)
    if given.root is None and known_split(run) is None:
        raise UsageError(
            f"there is no {Run(path.parent.parent).split_file}, so it is not known which samples are in val"
        )
    config = data_config(trained, given, run)
    data = load_data(config, task.classes, task.backbone.preprocess, "val", run, download=False)
    if not data.num_samples["val"] and not data.num_samples["train"]:
        raise UsageError("its splits are empty")
    return data
