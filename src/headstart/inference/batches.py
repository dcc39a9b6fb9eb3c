"""Batches of unlabelled samples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from headstart.data.module import leave_signals_to_the_run, loader_workers
from headstart.inputs.base import Preprocess, Unlabelled, UnreadableInput

WINDOW = 16
"""Number of batches that are read, sorted by length and written together."""


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        places: of the samples, counted from 0 over all samples.
        samples: those that cannot be used have a reason.
        inputs: the usable samples as one batch for the network; None if there is none.
    """

    places: list[int]
    samples: list[Unlabelled]
    inputs: Any

    def pin_memory(self) -> "Batch":
        """Called by the data loader; from pinned memory the copy to a GPU is asynchronous."""
        return Batch(self.places, self.samples, apply_to_collection(self.inputs, Tensor, Tensor.pin_memory))


class Reader(Dataset):
    """`(place, sample)` -> `(place, sample, input)`, ready for the model; for an unusable sample the input is None."""

    def __init__(self, preprocess: Preprocess):
        self.preprocess = preprocess

    def __getitem__(self, key: tuple[int, Unlabelled]) -> tuple[int, Unlabelled, Any]:
        place, sample = key
        if sample.reason is not None:
            return place, sample, None
        try:
            raw = self.preprocess.read(sample.name) if sample.raw is None else sample.raw
            kept = raw if self.preprocess.in_rows else None
            return place, Unlabelled(sample.name, kept), self.preprocess(raw)
        except UnreadableInput as error:
            return place, Unlabelled(sample.name, reason=error.reason), None


def prepared(source: str | BinaryIO, preprocess: Preprocess) -> Any:
    """One input for the model, from a file name or a stream.

    Raises:
        UnreadableInput: the file cannot be read as a sample.
    """
    return preprocess(preprocess.read(source))


def batches(
    samples: Iterable[Unlabelled], preprocess: Preprocess, batch_size: int, num_workers: int | None = None
) -> Iterable[Batch]:
    """The samples in batches; only the samples of a few batches are in memory.

    They keep their order, except that samples of different lengths are sorted by length within some batches.

    Args:
        samples: read one batch at a time.
        preprocess: of the model.
        batch_size: samples per batch.
        num_workers: loader processes; None chooses a number for the machine.
    """
    return DataLoader(
        Reader(preprocess),
        batch_sampler=_Chunks(samples, batch_size, preprocess),
        collate_fn=partial(_collate, preprocess),
        num_workers=loader_workers(1) if num_workers is None else num_workers,
        worker_init_fn=leave_signals_to_the_run,
        pin_memory=torch.cuda.is_available(),
    )


class _Chunks:
    """Lists of keys for the data loader; a key is the place of a sample and the sample. Can be iterated once."""

    def __init__(self, samples: Iterable[Unlabelled], size: int, preprocess: Preprocess):
        self.samples, self.size, self.preprocess = enumerate(samples), size, preprocess

    def __iter__(self) -> Iterator[list[tuple[int, Unlabelled]]]:
        while chunk := list(islice(self.samples, self.size)):
            if self.size == 1 or chunk[0][1].raw is None or self.preprocess.lengths([chunk[0][1].raw]) is None:
                yield chunk
                continue
            chunk += islice(self.samples, self.size * (WINDOW - 1))
            lengths = self.preprocess.lengths(sample.raw or "" for _, sample in chunk)
            order = sorted(range(len(chunk)), key=lengths.__getitem__, reverse=True)
            for start in range(0, len(order), self.size):
                yield [chunk[place] for place in order[start : start + self.size]]


def _collate(preprocess: Preprocess, found: list[tuple[int, Unlabelled, Any]]) -> Batch:
    places, samples, inputs = zip(*found, strict=True)
    usable = [one for one, sample in zip(inputs, samples, strict=True) if sample.reason is None]
    return Batch(list(places), list(samples), preprocess.collate(usable) if usable else None)
