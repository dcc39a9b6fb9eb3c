"""Batches of unlabelled samples from files."""

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
from headstart.inputs.base import Preprocess, UnreadableInput


@dataclass(frozen=True)
class FileBatch:
    """The samples of some files, in order.

    Attributes:
        names: of all files, readable or not.
        reasons: why a file cannot be read; None for a readable file.
        inputs: the readable samples as one batch for the network; None if no file is readable.
    """

    names: list[str]
    reasons: list[str | None]
    inputs: Any

    def pin_memory(self) -> "FileBatch":
        """Called by the data loader; from pinned memory the copy to a GPU is asynchronous."""
        return FileBatch(self.names, self.reasons, apply_to_collection(self.inputs, Tensor, Tensor.pin_memory))


class FileReader(Dataset):
    """File name -> `(name, input, None)`, ready for the model, or `(name, None, reason)`."""

    def __init__(self, preprocess: Preprocess):
        self.preprocess = preprocess

    def __getitem__(self, name: str) -> tuple[str, Any, str | None]:
        try:
            return name, prepared(name, self.preprocess), None
        except UnreadableInput as error:
            return name, None, error.reason


def prepared(source: str | BinaryIO, preprocess: Preprocess) -> Any:
    """One input for the model, from a file name or a stream.

    Raises:
        UnreadableInput: the file cannot be read as a sample.
    """
    return preprocess(preprocess.read(source))


def batches(
    names: Iterable[str], preprocess: Preprocess, batch_size: int, num_workers: int | None = None
) -> Iterable[FileBatch]:
    """The samples of these files in this order; only the names and samples of a few batches are in memory.

    Args:
        names: of files; read one batch at a time.
        preprocess: of the model.
        batch_size: files per batch.
        num_workers: loader processes; None chooses a number for the machine.
    """
    return DataLoader(
        FileReader(preprocess),
        batch_sampler=_Chunks(names, batch_size),
        collate_fn=partial(_collate, preprocess),
        num_workers=loader_workers(1) if num_workers is None else num_workers,
        worker_init_fn=leave_signals_to_the_run,
        pin_memory=torch.cuda.is_available(),
    )


class _Chunks:
    """Lists of keys for the data loader; the keys are the file names. Can be iterated once."""

    def __init__(self, names: Iterable[str], size: int):
        self.names, self.size = iter(names), size

    def __iter__(self) -> Iterator[list[str]]:
        while chunk := list(islice(self.names, self.size)):
            yield chunk


def _collate(preprocess: Preprocess, samples: list[tuple[Any, ...]]) -> FileBatch:
    names, inputs, reasons = zip(*samples, strict=True)
    readable = [one for one, reason in zip(inputs, reasons, strict=True) if reason is None]
    return FileBatch(list(names), list(reasons), preprocess.collate(readable) if readable else None)
