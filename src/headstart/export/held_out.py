"""Pictures of a run that its model did not learn from, to try an export on."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from headstart.data.module import DataModule
from headstart.data.trained_run import SPLIT_FILE, data_config, load_data, run_of
from headstart.errors import UsageError
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)
SIDES = 100, 600  # pixels of generated pictures


@dataclass(frozen=True)
class HeldOut:
    """Pictures as they are decoded, of any size.

    Attributes:
        data: where they are from; None for generated ones.
        positions: which of its val split; of generated ones their seeds.
    """

    data: DataModule | None
    positions: list[int]

    @property
    def real(self) -> bool:
        """Whether these are pictures of the run, with labels."""
        return self.data is not None

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Tensor]:
        """Each picture, uint8 `(3, height, width)`."""
        return self.of("val", self.positions) if self.real else map(_generated, self.positions)

    def of(self, split: str, positions: list[int]) -> Iterator[Tensor]:
        """Pictures of another split of the same data."""
        assert self.data is not None
        assert self.data.samples is not None
        return (self.data.samples.load(self.data.splits[split][position]) for position in positions)

    def targets(self) -> Tensor:
        """The labels of the pictures."""
        assert self.data is not None
        return self.data.targets("val", self.positions)


def held_out(trained: DictConfig, given: DictConfig, path: Path, task: ClassificationTask, count: int) -> HeldOut:
    """So many pictures of the run's val split, evenly spread over it; generated ones where its data are gone.

    Nothing is downloaded.

    Args:
        trained: the config of the run.
        given: what of its `data` is to be different, such as `root`; null: nothing.
        path: the checkpoint.
        task: the trained one.
        count: how many at most.

    Raises:
        UsageError: other data were asked for and cannot be used.
    """
    try:
        data = _val_data(trained, given, path, task)
    except (UsageError, OSError) as error:
        if given.root is not None:
            raise
        log.warning(
            "the run's data cannot be used (%s): %d GENERATED pictures take their place; data.root=<folder> for real "
            "ones", error, count,
        )  # fmt: skip
        return HeldOut(None, list(range(count)))
    total = data.num_samples["val"]
    count = min(count, total)
    return HeldOut(data, [index * total // count for index in range(count)])


def _val_data(trained: DictConfig, given: DictConfig, path: Path, task: ClassificationTask) -> DataModule:
    home = run_of(path)
    if given.root is None and home is None:
        raise UsageError(f"there is no {path.parent.parent / SPLIT_FILE}, which would say what the model learned from")
    data = load_data(data_config(trained, given, home), task, "val", home, download=False)
    if not data.num_samples["val"]:
        raise UsageError("the val split is empty")
    return data


def _generated(seed: int) -> Tensor:
    """Smooth blobs and noise, of another size each time: what a resize gets wrong shows in both."""
    random = torch.Generator().manual_seed(seed)
    height, width = torch.randint(*SIDES, (2,), generator=random).tolist()
    coarse = torch.rand(1, 3, 8, 8, generator=random) * 255
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    noise = torch.randn(3, height, width, generator=random) * 20
    return (smooth + noise).clamp(0, 255).to(torch.uint8)
