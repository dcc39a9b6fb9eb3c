"""Pictures without labels, from files whose names come one after the other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from headstart.data.module import leave_signals_to_the_run, loader_workers
from headstart.inputs.images.decode import MAX_PIXELS, UnreadablePicture, read_picture


class Preprocess(Protocol):
    """What a model does to one picture before it sees it."""

    decode_side: int
    """How long in pixels the shorter side of the decoded picture must be."""

    def resized_pixels(self, height: int, width: int) -> int:
        """How large a picture becomes on the way."""

    def __call__(self, picture: Tensor) -> Tensor:
        """uint8 `(3, height, width)` -> uint8 `(3, image_size, image_size)`."""


@dataclass(frozen=True)
class PictureBatch:
    """Some files in the order of their names.

    Attributes:
        names: of all files, readable or not.
        reasons: why a file cannot be read; None for those that can.
        pictures: those that can, uint8 `(readable, 3, image_size, image_size)`; None where there is none.
    """

    names: list[str]
    reasons: list[str | None]
    pictures: Tensor | None

    def pin_memory(self) -> "PictureBatch":
        """What a loader calls so that the copy to a GPU need not be waited for."""
        pictures = None if self.pictures is None else self.pictures.pin_memory()
        return PictureBatch(self.names, self.reasons, pictures)


class PictureReader(Dataset):
    """File name -> `(name, picture, None)`, the picture ready for the model, or `(name, None, reason)`."""

    def __init__(self, preprocess: Preprocess):
        self.preprocess = preprocess

    def __getitem__(self, name: str) -> tuple[str, Tensor | None, str | None]:
        try:
            return name, prepared(name, self.preprocess), None
        except UnreadablePicture as error:
            return name, None, error.reason


def prepared(source: str | BinaryIO, preprocess: Preprocess) -> Tensor:
    """One picture, from a file name or a stream, ready for the model: uint8 `(3, image_size, image_size)`.

    Raises:
        UnreadablePicture: it cannot be decoded right.
    """
    picture = read_picture(source, preprocess.decode_side)
    _refuse_too_long(picture, preprocess)
    return preprocess(picture)


def batches(
    names: Iterable[str], preprocess: Preprocess, batch_size: int, num_workers: int | None = None
) -> Iterable[PictureBatch]:
    """The pictures of these files in this order; a few batches are in memory at a time, and no more names than that.

    Args:
        names: of files; they are asked for when a batch is due.
        preprocess: the model's.
        batch_size: files a batch.
        num_workers: loader processes; None picks by machine.
    """
    return DataLoader(
        PictureReader(preprocess),
        batch_sampler=_Chunks(names, batch_size),
        collate_fn=_collate,
        num_workers=loader_workers(1) if num_workers is None else num_workers,
        worker_init_fn=leave_signals_to_the_run,
        pin_memory=torch.cuda.is_available(),
    )


class _Chunks:
    """The keys by which a loader asks for samples: here the names themselves. Can be gone through once."""

    def __init__(self, names: Iterable[str], size: int):
        self.names, self.size = iter(names), size

    def __iter__(self) -> Iterator[list[str]]:
        while chunk := list(islice(self.names, self.size)):
            yield chunk


def _collate(samples: list[tuple[Any, ...]]) -> PictureBatch:
    names, pictures, reasons = zip(*samples, strict=True)
    readable = [picture for picture in pictures if picture is not None]
    return PictureBatch(list(names), list(reasons), torch.stack(readable) if readable else None)


def _refuse_too_long(picture: Tensor, preprocess: Preprocess) -> None:
    """A strip of few pixels would become gigabytes when its shorter side is enlarged."""
    height, width = picture.shape[1:]
    if preprocess.resized_pixels(height, width) > MAX_PIXELS:
        raise UnreadablePicture(f"too long for its width: {width} x {height} pixels")
