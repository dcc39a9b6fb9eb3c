"""Pictures in files or in memory, loaded by their index; and the search for files in a folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import features
from torch import Tensor

from headstart.inputs.images.decode import picture_size, read_picture

JUNK_NAMES = {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN"}
"""Names of files and folders that are never data. Names with a leading dot are not data either."""
# "jpg" is the version of the interface of libjpeg; libjpeg-turbo has another version of its own
CODECS = ("pil", "jpg", "libjpeg_turbo", "zlib", "libtiff", "webp", "avif", "jpg_2000")


class PictureFiles:
    """Loads pictures from a list of files.

    Args:
        paths: the files.
        least_side: as for `read_picture`.
    """

    def __init__(self, paths: list[str], least_side: int | None = None):
        self.paths, self.least_side = paths, least_side

    def decoded_at(self, least_side: int | None) -> "PictureFiles":
        """The same files, decoded at another size."""
        return PictureFiles(self.paths, least_side)

    def __call__(self, index: int) -> Tensor:
        """Picture `index`, uint8 RGB `(3, height, width)`."""
        return read_picture(self.paths[index], self.least_side)

    def size_of(self, index: int) -> tuple[int, int]:
        """Width and height of picture `index`, without decoding it."""
        return picture_size(self.paths[index])

    def fingerprint(self) -> list[Any]:
        """Everything that the pixels of a file depend on: code, settings, and versions of the decoders."""
        settings = {name: value for name, value in vars(self).items() if name != "paths"}
        return [type(self), settings, {name: features.version(name) for name in CODECS}]


class PictureStack:
    """Loads pictures from memory, as RGB.

    Args:
        pictures: uint8, `(n, 3, height, width)` or grey `(n, height, width)`.
    """

    def __init__(self, pictures: Tensor):
        self.pictures = pictures

    def __call__(self, index: int) -> Tensor:
        """Picture `index`, uint8 `(3, height, width)`."""
        picture = self.pictures[index]
        return picture.expand(3, -1, -1) if picture.ndim == 2 else picture


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder that are not junk, in a fixed order. Links are followed, but no folder is read twice.

    Otherwise a link to a parent folder would never end. Only the names of one folder at a time are in memory.
    """
    return _files(folder, {str(parent) for parent in Path(os.path.realpath(folder)).parents})


def _files(folder: Path, visited: set[str]) -> Iterator[Path]:
    visited.add(os.path.realpath(folder))
    with os.scandir(folder) as found:
        # folders before links, so that a picture's name does not depend on the order in the file system
        entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))
    for entry in entries:
        if is_junk(entry.name):
            continue
        # entry.is_dir() raises an error for a link to itself; os.path.isdir() would be slow for every file
        if not (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()):
            yield Path(entry.path)
        elif os.path.realpath(entry.path) not in visited:
            yield from _files(Path(entry.path), visited)


def is_junk(name: str) -> bool:
    """Whether a file or folder with this name is never data."""
    return name.startswith(".") or name in JUNK_NAMES


def size_of(load: Callable[[int], Any], index: int) -> tuple[int, int] | None:
    """Width and height of a picture, if possible without decoding its file; None if the input is not a picture."""
    if hasattr(load, "size_of"):
        return load.size_of(index)
    value = load(index)
    return (value.shape[2], value.shape[1]) if isinstance(value, Tensor) and value.ndim == 3 else None
