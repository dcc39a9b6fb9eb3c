"""Which sample is learned from when: a function of seed, epoch and place in the epoch alone.

So a run that was interrupted goes on exactly, inside an epoch too, and with any number of loader processes. Whether a
batch brings pictures or what a frozen part of the network made of them changes nothing of that.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler

from headstart.seeds import derive_seed

Rows = Callable[[Sequence[int]], Tensor]
"""Positions in a split -> the activations `(len(positions), ...)` of these samples."""


@dataclass(frozen=True)
class FixedViews:
    """Activations of so many augmented versions of each sample, those of a sample side by side.

    Args:
        rows: of `num_samples * number` rows.
        number: of versions.
    """

    rows: Rows
    number: int

    def __call__(self, keys: Sequence[tuple[int, int]]) -> Tensor:
        """Of each `(position, seed)` one version, chosen by the seed."""
        return self.rows([position * self.number + seed % self.number for position, seed in keys])


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields one process's share of an epoch: `(position in the data set, seed of the augmentation)`.

    Of the epoch's order process `rank` takes every `world_size`-th place, so the processes' batches together are the
    batch of one process with a `world_size` times larger batch. The seed belongs to the place in the order of all
    processes; a sample drawn twice is augmented twice. The order repeats from its start until all have equally many.

    Args:
        num_samples: length of the data set, and of an epoch.
        seed: of order and augmentation.
        weights: `(num_samples,)`, draws in these proportions with replacement; None takes every sample once.
        rank: which process this is.
        world_size: number of processes.
        reshuffle: whether every epoch has an order of its own; the augmentation always differs.

    Attributes:
        start: how many samples of the share the next iteration leaves out, that one alone.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
        reshuffle: bool = True,
    ):
        self.num_samples, self.seed, self.weights = num_samples, seed, weights
        self.rank, self.world_size, self.reshuffle = rank, world_size, reshuffle
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        """Samples in the whole share: an epoch that is gone on with is as long as any other."""
        return -(-self.num_samples // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration; Lightning calls this at the start of each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start, self.start = self.start, 0
        order, epoch = self._order(), self.epoch
        places = range(self.rank + start * self.world_size, len(self) * self.world_size, self.world_size)
        return ((order[place % self.num_samples], derive_seed(self.seed, epoch, place)) for place in places)

    def _order(self) -> list[int]:
        """The positions of an epoch, of all processes."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch if self.reshuffle else 0))
        if self.weights is None:
            return torch.randperm(self.num_samples, generator=generator).tolist()
        weights = torch.as_tensor(self.weights, dtype=torch.float64)
        return torch.multinomial(weights, self.num_samples, replacement=True, generator=generator).tolist()


class CachedLoader(DataLoader):
    """Batches of a data set or, where its activations are stored, of these: the same samples in the same batches.

    Stored rows are read by this process itself; loader processes are not even started for them.

    Args:
        dataset: for stored rows it has `cached_batch(keys, rows)`, its samples under these keys as a batch.
        stored: asked at the start of every iteration for the rows, None where there are none.
        options: of torch's `DataLoader`.
    """

    def __init__(self, dataset: Any, cached_rows: Callable[[], Rows | None] | None = None, **options: Any):
        self.cached_rows = cached_rows
        super().__init__(dataset, **options)

    def __iter__(self) -> Iterator[Any]:
        rows = self.cached_rows() if self.cached_rows else None
        if rows is None:
            return super().__iter__()
        return (self.dataset.cached_batch(keys, rows) for keys in self.batch_sampler)


class EpochLoader(CachedLoader):
    """Batches of an `EpochSampler`, beginning with the one Lightning is at.

    Lightning asks for an iterator before it has restored how far a run was (when a scheduler must know the number of
    steps) and before it names the epoch, and loader processes would begin at once. So nothing begins until the first
    batch is asked for; by then Lightning knows how many batches of the epoch are done, wherever in it the checkpoint
    was made.

    Args:
        dataset: takes what the sampler yields.
        sampler: which samples, in which order.
        batch_size: samples a batch.
        drop_last: whether to leave out a last, smaller batch.
        trainer: whose progress decides with which batch to begin; None begins with the first.
        options: of `CachedLoader` and torch's `DataLoader`.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: EpochSampler,
        batch_size: int,
        drop_last: bool = False,
        trainer: pl.Trainer | None = None,
        **options: Any,
    ):
        self.epoch_sampler, self.trainer = sampler, trainer
        # not as `sampler`: with trainer.overfit_batches Lightning replaces any that is not torch's sequential one
        super().__init__(dataset, batch_sampler=BatchSampler(sampler, batch_size, drop_last), **options)

    def __iter__(self) -> Iterator[Any]:
        self.epoch_sampler.start = self._batches_done() * self.batch_sampler.batch_size
        self.trainer = None  # epochs after the first begin at their beginning, and so does whoever looks in between
        yield from super().__iter__()

    def _batches_done(self) -> int:
        """Batches of the epoch that lie behind; 0 for a loader that is not the one Lightning trains with."""
        if self.trainer is None or self.trainer.train_dataloader is not self:
            return 0
        return self.trainer.fit_loop.batch_idx + 1

    def state_dict(self) -> dict[str, Any]:
        """Nothing, for Lightning's own counters say it all; that there is a state tells it that we can resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back the nothing that was kept."""
