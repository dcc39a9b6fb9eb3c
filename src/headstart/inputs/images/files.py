"""Pictures in files and in memory, found and loaded by number."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import features
from torch import Tensor

from headstart.inputs.images.decode import picture_size, read_picture

JUNK = {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN"}
"""Names of files and folders that are never data; nor are names with a leading dot."""
# "jpg" is the version of its interface; libjpeg-turbo, where it is that, has one of its own
CODECS = ("pil", "jpg", "libjpeg_turbo", "zlib", "libtiff", "webp", "avif", "jpg_2000")


class PictureFiles:
    """Loads picture `i` of a list of files, decoded as `read_picture` does with this `least_side`."""

    def __init__(self, paths: list[str], least_side: int | None = None):
        self.paths, self.least_side = paths, least_side

    def decoded_at(self, least_side: int | None) -> "PictureFiles":
        """The same files, decoded to another size."""
        return PictureFiles(self.paths, least_side)

    def __call__(self, index: int) -> Tensor:
        """Picture `index`, uint8 RGB `(3, height, width)`."""
        return read_picture(self.paths[index], self.least_side)

    def size_of(self, index: int) -> tuple[int, int]:
        """Width and height of picture `index`, without decoding it."""
        return picture_size(self.paths[index])

    def fingerprint(self) -> list[Any]:
        """Everything that turns the bytes of a file into pixels: code, settings, versions of the decoders."""
        settings = {name: value for name, value in vars(self).items() if name != "paths"}
        return [type(self), settings, {name: features.version(name) for name in CODECS}]


class PictureStack:
    """Loads picture `i` of a uint8 stack in memory, `(n, 3, height, width)` or grey `(n, height, width)`, as RGB."""

    def __init__(self, pictures: Tensor):
        self.pictures = pictures

    def __call__(self, index: int) -> Tensor:
        """Picture `index`, uint8 `(3, height, width)`."""
        picture = self.pictures[index]
        return picture.expand(3, -1, -1) if picture.ndim == 2 else picture


def files_below(folder: Path) -> Iterator[Path]:
    """Visible files, through links too, but no folder twice: a link to a parent would have no end.

    In a fixed order, one folder at a time: the names of one folder are in memory, not those of all.
    """
    return _files(folder, {str(parent) for parent in Path(os.path.realpath(folder)).parents})


def _files(folder: Path, visited: set[str]) -> Iterator[Path]:
    visited.add(os.path.realpath(folder))
    with os.scandir(folder) as found:
        # folders before links to them, so that a picture's name does not depend on the order of the file system
        entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))
    for entry in entries:
        if is_junk(entry.name):
            continue
        # of a link that leads to itself, entry.is_dir() raises; asked of every file, isdir() would be slow
        if not (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()):
            yield Path(entry.path)
        elif os.path.realpath(entry.path) not in visited:
            yield from _files(Path(entry.path), visited)


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is left out."""
    return name.startswith(".") or name in JUNK


def size_of(load: Callable[[int], Any], index: int) -> tuple[int, int] | None:
    """Width and height of a picture, from the head of its file where it is one; None where it is no picture."""
    if hasattr(load, "size_of"):
        return load.size_of(index)
    value = load(index)
    return (value.shape[2], value.shape[1]) if isinstance(value, Tensor) and value.ndim == 3 else None
