"""The order of training samples: it depends only on the seed, the epoch and the place in the epoch.

So an interrupted run continues exactly, also in the middle of an epoch and with another number of loader processes.
The order is the same for batches of inputs and for batches of cached activations.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler

from headstart.seeds import derive_seed

BATCHES_SORTED = 50
"""Number of batches that are sorted by length together: more have less padding, fewer are mixed better."""
Rows = Callable[[Sequence[int]], Tensor]
"""Positions in a split -> the activations `(len(positions), ...)` of these samples."""


@dataclass(frozen=True)
class FixedViews:
    """Activations of `number` augmented versions of each sample; the versions of a sample follow each other.

    Args:
        rows: gives any of `num_samples * number` rows.
        number: versions per sample.
    """

    rows: Rows
    number: int

    def __call__(self, keys: Sequence[tuple[int, int]]) -> Tensor:
        """One version for each `(position, seed)`, chosen by the seed."""
        return self.rows([position * self.number + seed % self.number for position, seed in keys])


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields one process's share of an epoch: `(position in the data set, seed of the augmentation)`.

    Process `rank` takes every `world_size`-th place of the epoch's order. So the batches of all processes together are
    the batch of one process with a `world_size` times larger batch size. The seed belongs to the place in the order of
    all processes, so a sample that is drawn twice gets two augmentations. If the samples cannot be divided evenly, the
    order repeats from its start until all processes have the same number.

    Args:
        num_samples: length of the data set, and of an epoch.
        seed: of order and augmentation.
        weights: `(num_samples,)`, to draw in these proportions with replacement; None: every sample once.
        lengths: `(num_samples,)`, the length of each sample; None: all have the same size. Batches are made of samples
            of similar lengths, so little is padded. Their order depends only on seed, epoch, lengths, and the number of
            samples per batch of all processes.
        batch_size: samples per batch and process; only with `lengths` and `classes`.
        classes: called at the start of every iteration; gives the class of each sample if every batch of every process
            shall have equally frequent classes, with at least two samples each. Then rare classes are drawn more often,
            and samples of any length are together. None: batches are not balanced.
        rank: of this process.
        world_size: number of processes.
        reshuffle: whether every epoch has a new order; the augmentation always differs.

    Attributes:
        start: number of samples of the share that the next iteration skips; later iterations skip none.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
        reshuffle: bool = True,
        lengths: Sequence[int] | None = None,
        batch_size: int = 1,
        classes: Callable[[], Sequence[int] | None] = lambda: None,
    ):
        self.num_samples, self.seed, self.weights = num_samples, seed, weights
        self.lengths, self.batch_size, self.classes = lengths, batch_size, classes
        self.rank, self.world_size, self.reshuffle = rank, world_size, reshuffle
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        """Samples in the whole share, also for a resumed epoch."""
        return -(-self.num_samples // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration; Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start, self.start = self.start, 0
        order, epoch = self._order(), self.epoch
        places = range(self.rank + start * self.world_size, len(self) * self.world_size, self.world_size)
        return ((order[place % len(order)], derive_seed(self.seed, epoch, place)) for place in places)

    def _order(self) -> list[int]:
        """The positions of an epoch, for all processes together."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch if self.reshuffle else 0))
        if (classes := self.classes()) is not None:
            return self._balanced(classes, generator)
        if self.weights is None:
            order = torch.randperm(self.num_samples, generator=generator).tolist()
        else:
            weights = torch.as_tensor(self.weights, dtype=torch.float64)
            order = torch.multinomial(weights, self.num_samples, replacement=True, generator=generator).tolist()
        return order if self.lengths is None else self._in_similar_lengths(order, generator)

    def _in_similar_lengths(self, order: list[int], generator: torch.Generator) -> list[int]:
        """The same positions, so ordered that the batches of all processes together have samples of similar lengths.

        Each part of `BATCHES_SORTED` batches is sorted by length, then the order of the batches is random. The batch
        with the longest sample comes first: if the memory is too small for it, the first step shows it. A last, smaller
        batch stays last; its samples are of any length, so that short ones are not always in it.
        """
        size = self.batch_size * self.world_size
        whole = len(order) // size * size
        last = sorted(order[whole:], key=self.lengths.__getitem__, reverse=True)
        batches: list[list[int]] = []
        for start in range(0, whole, size * BATCHES_SORTED):
            part = order[start : min(start + size * BATCHES_SORTED, whole)]
            part.sort(key=self.lengths.__getitem__, reverse=True)
            batches += [part[place : place + size] for place in range(0, len(part), size)]
        batches = [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]
        if batches:
            longest = max(range(len(batches)), key=lambda place: self.lengths[batches[place][0]])
            batches.insert(0, batches.pop(longest))
        return list(chain.from_iterable([*batches, last]))

    def _balanced(self, classes: Sequence[int], generator: torch.Generator) -> list[int]:
        """Positions whose batches, in each process, have equally frequent classes."""
        positions = {name: [p for p, each in enumerate(classes) if each == name] for name in sorted(set(classes))}
        draws = {name: _endlessly_shuffled(found, generator) for name, found in positions.items()}
        order: list[int] = []
        for start in range(0, len(self), self.batch_size):
            size = min(self.batch_size, len(self) - start)
            batches = [_balanced_batch(size, draws, generator) for _ in range(self.world_size)]
            order += chain.from_iterable(zip(*batches, strict=True))  # a process takes every `world_size`-th place
        return order


def _endlessly_shuffled(items: Sequence[int], generator: torch.Generator) -> Iterator[int]:
    while True:
        yield from (items[place] for place in torch.randperm(len(items), generator=generator).tolist())


def _balanced_batch(size: int, draws: Mapping[int, Iterator[int]], generator: torch.Generator) -> list[int]:
    """`size` positions of random classes, at least two of each; of all classes if there is room for them."""
    names, number = list(draws), max(min(len(draws), size // 2), 1)
    chosen = [names[place] for place in torch.randperm(len(names), generator=generator)[:number].tolist()]
    return [next(draws[chosen[place % number]]) for place in range(size)]


class CachedLoader(DataLoader):
    """Batches of a data set, or of its cached activations if there are any: the same samples in the same batches.

    Cached rows are read by this process; no loader processes are started for them.

    Args:
        dataset: for cached rows it needs `cached_batch(keys, rows)`, the batch of the samples with these keys.
        cached_rows: called when the first batch of an iteration is asked for; gives the rows, or None if there are
            none. Lightning asks for the iterator itself before callbacks can say where the rows are.
        origin: the data module and the name of the split.
        options: of torch's `DataLoader`.
    """

    def __init__(
        self,
        dataset: Any,
        cached_rows: Callable[[], Rows | None] | None = None,
        origin: tuple[pl.LightningDataModule, str] | None = None,
        **options: Any,
    ):
        self.cached_rows, self.origin = cached_rows, origin
        super().__init__(dataset, **options)

    def __iter__(self) -> Iterator[Any]:
        rows = self.cached_rows() if self.cached_rows else None
        if rows is None:
            yield from super().__iter__()
        else:
            yield from (self.dataset.cached_batch(keys, rows) for keys in self.batch_sampler)


class EpochLoader(CachedLoader):
    """Batches of an `EpochSampler`, beginning with the batch that Lightning's progress is at.

    Lightning asks for an iterator before it has restored the progress of a run (if a scheduler needs the number of
    steps) and before it sets the epoch, and loader processes would start at once. So nothing starts before the first
    batch is asked for. By then Lightning knows how many batches of the epoch are done, for a checkpoint from any place
    in the epoch.

    Args:
        dataset: its keys are what the sampler yields.
        sampler: gives the samples and their order.
        batch_size: samples per batch.
        drop_last: whether to leave out a last, smaller batch.
        trainer: its progress decides which batch is the first; None: begin with the first of the epoch.
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
        self.trainer = None  # later iterations begin with the first batch of the epoch
        yield from super().__iter__()

    def _batches_done(self) -> int:
        """Batches of the epoch that are done; 0 if Lightning does not train with this loader."""
        if self.trainer is None or self.trainer.train_dataloader is not self:
            return 0
        return self.trainer.fit_loop.batch_idx + 1

    def state_dict(self) -> dict[str, Any]:
        """Empty: Lightning's own counters are enough. But the method must exist, or Lightning warns on resuming."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing: the state is empty."""
