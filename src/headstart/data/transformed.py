"""Samples of a pool for the loaders: plain or augmented, with or without targets, or as cached activations."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from headstart.data.activations import Activations
from headstart.data.samples import Samples
from headstart.data.sampling import FixedViews, Rows
from headstart.inputs.transforms import Load, Transform
from headstart.seeds import reseed_cpu


class Transformed(Dataset):
    """Some samples of a pool, loaded and transformed on access: `(input, target)`.

    Args:
        samples: the pool.
        indices: of these samples in the pool.
        load: index in the pool -> the sample after the deterministic part of the transform.
        random: the random part of the transform.
    """

    def __init__(self, samples: Samples, indices: list[int], load: Load, random: Transform):
        self.samples, self.indices, self.load, self.random = samples, indices, load, random

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Any, Any]:
        return self.input(position), self.target(position)

    def input(self, position: int) -> Any:
        """One sample as an input of the model."""
        return self.random(self.load(self.indices[position]))

    def target(self, position: int) -> Any:
        """The label, the labels or the numbers of a sample."""
        target = self.samples.targets[self.indices[position]]
        # a tensor, because a plain list would be collated label by label
        return torch.tensor(target) if self.samples.multi_label or self.samples.numbers else target

    def cached_batch(self, positions: Sequence[int], rows: Rows) -> tuple[Activations, Tensor]:
        """The batch of these samples, with cached activations as inputs."""
        return Activations(rows(positions)), default_collate([self.target(position) for position in positions])


class Inputs(Transformed):
    """Plain samples without targets."""

    def __getitem__(self, position: int) -> Any:
        return self.input(position)


class Augmented(Transformed):
    """Augmented samples for training; keys are `(position, seed)`, and the seed decides the augmentation."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, Any]:
        position, seed = key
        # so the augmentation depends neither on the process nor on the samples it loaded before
        reseed_cpu(seed)
        return super().__getitem__(position)

    def cached_batch(self, keys: Sequence[tuple[int, int]], rows: Rows | FixedViews) -> tuple[Activations, Tensor]:
        """The same for keys `(position, seed)`; if `rows` has fixed views, the seeds choose among them."""
        positions = [position for position, _ in keys]
        return super().cached_batch(positions, (lambda _: rows(keys)) if isinstance(rows, FixedViews) else rows)


class AugmentedInputs(Augmented):
    """Augmented samples without targets."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return super().__getitem__(key)[0]


def collate_with_targets(collate: Callable[[list[Any]], Any], samples: list[tuple[Any, Any]]) -> tuple[Any, Tensor]:
    """Samples `(input, target)` -> a batch `(inputs, targets)`; `collate` makes the batch of inputs."""
    inputs, targets = zip(*samples, strict=True)
    return collate(list(inputs)), default_collate(list(targets))
