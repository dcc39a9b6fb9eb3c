"""Pictures in files or in memory, loaded by their index."""

from collections.abc import Callable
from typing import Any

from PIL import features
from torch import Tensor

from headstart.inputs.images.decode import HEIC_VERSION, picture_size, read_picture

# "jpg" is the version of the interface of libjpeg; libjpeg-turbo has another version of its own
CODECS = ("pil", "jpg", "libjpeg_turbo", "zlib", "libtiff", "webp", "avif", "jpg_2000")


class PictureFiles:
    """Loads pictures from a list of files.

    Args:
        paths: the files.
        least_side: as for `read_picture`.
        grey_bits: as for `read_picture`; None: there are no pictures of 16-bit grey.
    """

    def __init__(self, paths: list[str], least_side: int | None = None, grey_bits: int | None = None):
        self.paths, self.least_side, self.grey_bits = paths, least_side, grey_bits

    def decoded(self, least_side: int | None, grey_bits: int) -> "PictureFiles":
        """The same files, decoded in another way."""
        return PictureFiles(self.paths, least_side, grey_bits)

    def __call__(self, index: int) -> Tensor:
        """Picture `index`, uint8 RGB `(3, height, width)`."""
        return read_picture(self.paths[index], self.least_side, self.grey_bits or 16)

    def size_of(self, index: int) -> tuple[int, int]:
        """Width and height of picture `index`, without decoding it."""
        return picture_size(self.paths[index])

    def fingerprint(self) -> list[Any]:
        """Everything that the pixels of a file depend on: code, settings, and versions of the decoders."""
        settings = {name: value for name, value in vars(self).items() if name != "paths"}
        return [type(self), settings, {name: features.version(name) for name in CODECS}, HEIC_VERSION]


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


def size_of(load: Callable[[int], Any], index: int) -> tuple[int, int] | None:
    """Width and height of a picture, if possible without decoding its file; None if the input is not a picture."""
    if hasattr(load, "size_of"):
        return load.size_of(index)
    value = load(index)
    return (value.shape[2], value.shape[1]) if isinstance(value, Tensor) and value.ndim == 3 else None
