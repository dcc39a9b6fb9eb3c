"""The preprocessing of pictures: resize and crop as a set of pretrained weights expects them."""

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from headstart.errors import UsageError, nearest
from headstart.inputs.base import Preprocess, Setting, UnreadableInput
from headstart.inputs.images.decode import MAX_PIXELS, PICTURE_SUFFIXES, picture_in_memory, picture_size, read_picture
from headstart.inputs.images.resizing import Resize

log = logging.getLogger(__name__)
INTERPOLATIONS = ("bilinear", "bicubic")
RESIZE_MODES = ("crop", "squash", "letterbox")
SMALL_SIDE, SIZE_FOR_SMALL = 96, 128
"""`finetuning=auto` uses the second as input size if the shorter sides of most pictures have at most the first."""
EXAMPLE_SIDES = 100, 600
"""Shortest and longest side of generated pictures, in pixels."""


@dataclass(frozen=True)
class ImagePreprocess(Preprocess):
    """Resize and crop as a set of weights expects them. The backbone itself does the normalisation.

    Args:
        image_size: height and width of the network's input, in pixels.
        resize_size: length of the shorter side before the centre is cropped, in pixels (only for `resize_mode=crop`).
        interpolation: `bilinear` or `bicubic`, always antialiased.
        resize_mode: `crop` keeps the proportions and loses the edges, `squash` keeps the edges and loses the
            proportions, `letterbox` keeps both and adds black bars.
        grey_bits: bits that are used in pictures of 16-bit grey; found when the training pictures are checked.

    Raises:
        UsageError: a mode does not exist, or a size is not possible.
    """

    sample_name = "picture"
    suffixes = PICTURE_SUFFIXES
    hub_task = "image-classification"

    image_size: int
    resize_size: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    resize_mode: Literal["crop", "squash", "letterbox"] = "crop"
    grey_bits: int = 16

    def __post_init__(self) -> None:
        for key, allowed in (("interpolation", INTERPOLATIONS), ("resize_mode", RESIZE_MODES)):
            given = getattr(self, key)
            if given not in allowed:
                raise UsageError(f"{key}={given!r} does not exist{nearest(str(given), allowed)} Use one of {allowed}.")
        for key in ("image_size", "resize_size"):
            given = getattr(self, key)
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise UsageError(f"{key}={given!r}: give a whole number of pixels, such as model.image_size=224.")
        if self.resize_mode == "crop" and self.resize_size < self.image_size:
            raise UsageError(
                f"resize_size={self.resize_size} is smaller than image_size={self.image_size}: the crop would reach "
                "beyond the picture. Make resize_size at least as large."
            )

    @property
    def decode_side(self) -> int:
        """Least length of the shorter side of a decoded picture, in pixels: twice its length after the resize.

        A JPEG decoder may skip finer detail, because the resize would remove it. The length depends only on these
        settings, so training, evaluation and every later use get the same pixels.
        """
        return 2 * (self.resize_size if self.resize_mode == "crop" else self.image_size)

    def resized_pixels(self, height: int, width: int) -> int:
        """Number of pixels after the resize of a picture of this size; very large for a long, narrow picture."""
        if self.resize_mode != "crop":
            return self.image_size**2
        return height * width * self.resize_size**2 // min(height, width) ** 2

    def __call__(self, image: Tensor) -> Tensor:
        """One picture, uint8 `(channels, height, width)`, to uint8 `(channels, image_size, image_size)`."""
        square = [self.image_size, self.image_size]
        if self.resize_mode == "squash":
            return self._resize(image, square)
        if self.resize_mode == "letterbox":
            # a centre crop larger than the picture pads it with zeros
            return transforms.center_crop(self._resize(image, None, max_size=self.image_size), square)
        return transforms.center_crop(self._resize(image, [self.resize_size]), square)

    def seen(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of a picture of this size that the input shows: its top, left, bottom and right edge, in pixels.

        With `letterbox` it reaches beyond the picture.
        """
        if self.resize_mode == "squash":
            return 0, 0, height, width
        side = max(height, width)
        if self.resize_mode == "crop":
            side = min(height, width) * self.image_size / self.resize_size
        return (height - side) / 2, (width - side) / 2, (height + side) / 2, (width + side) / 2

    def _resize(self, image: Tensor, size: list[int] | None, max_size: int | None = None) -> Tensor:
        return transforms.resize(image, size, InterpolationMode(self.interpolation), max_size, antialias=True)

    def collate(self, inputs: Sequence[Tensor]) -> Tensor:
        """Pictures of one size -> uint8 `(batch, 3, image_size, image_size)`."""
        return default_collate(list(inputs))

    def example(self, number: int) -> Tensor:
        """Random pixels, uint8 `(number, 3, image_size, image_size)`."""
        return torch.randint(0, 256, (number, 3, self.image_size, self.image_size), dtype=torch.uint8)

    def check_kind(self, loads: Sequence[Callable[[int], Any]]) -> None:
        """Refuses texts."""
        if any(getattr(load, "gives_texts", False) for load in loads):
            raise UsageError("this model is for pictures, and the data hold texts: type model=minilm")

    def raw_example(self, seed: int) -> Tensor:
        """Smooth blobs and noise, uint8 `(3, height, width)`, of another size for each seed.

        Smooth and rough parts together show every error of a resize.
        """
        random = torch.Generator().manual_seed(seed)
        height, width = torch.randint(*EXAMPLE_SIDES, (2,), generator=random).tolist()
        coarse = torch.rand(1, 3, 8, 8, generator=random) * 255
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
        noise = torch.randn(3, height, width, generator=random) * 20
        return (smooth + noise).clamp(0, 255).to(torch.uint8)

    def companion(self, raw: Tensor) -> Tensor:
        """The mirror image."""
        return raw.flip(2)

    def from_memory(self, given: Any) -> Tensor | None:
        """The pixels of a PIL picture or of a NumPy array; None for a path, which names files."""
        is_picture = isinstance(given, (Image.Image, np.ndarray))
        return picture_in_memory(given, self.grey_bits) if is_picture else super().from_memory(given)

    def read(self, source: str | BinaryIO) -> Tensor:
        """A decoded picture, uint8 `(3, height, width)`.

        Raises:
            UnreadableInput: it cannot be decoded correctly, or is so long and narrow that its resize needs gigabytes.
        """
        picture = read_picture(source, self.decode_side, self.grey_bits)
        height, width = picture.shape[1:]
        if self.resized_pixels(height, width) > MAX_PIXELS:
            raise UnreadableInput(f"too long for its width: {width} x {height} pixels")
        return picture

    def refuse_large(self, source: BinaryIO, most: int) -> None:
        """Refuses a picture with more than `most` pixels; reads only the header."""
        width, height = picture_size(source)
        if width * height > most:
            raise UnreadableInput(f"too large: {width} x {height} pixels, at most {most / 1e6:g} million are decoded")

    def adapt_loader(self, load: Callable[[int], Any]) -> Callable[[int], Any]:
        """Decodes picture files at a reduced size, with a shorter side of at least `decode_side` pixels."""
        return load.decoded(self.decode_side, self.grey_bits) if hasattr(load, "decoded") else load

    def fit_to(self, loads: Sequence[Callable[[int], Any]]) -> "ImagePreprocess":
        """With the bits of 16-bit grey that the check of the pictures has found."""
        bits = max((bits for load in loads if (bits := getattr(load, "grey_bits", None))), default=16)
        if bits != 16:
            log.warning("the 16-bit grey pictures use only %d bits: their value %d becomes white", bits, 2**bits - 1)
        return replace(self, grey_bits=bits)

    def as_module(self) -> nn.Module:
        """Resize and crop for an exported network."""
        return Resize(self.resize_mode, self.interpolation, self.image_size, self.resize_size)

    def export_example(self, raw: bool = False) -> tuple[Tensor, dict[int, str]]:
        """Two black pictures; raw ones are not square: an export would assume that equal sides are always equal."""
        if not raw:
            return torch.zeros(2, 3, self.image_size, self.image_size, dtype=torch.uint8), {0: "batch"}
        sides = self.image_size + 33, self.image_size + 66
        return torch.zeros(2, 3, *sides, dtype=torch.uint8), {0: "batch", 2: "height", 3: "width"}

    def describe(self, raw: bool = False) -> dict[str, Any]:
        """As `Preprocess.describe`."""
        size = ["height", "width"] if raw else [self.image_size] * 2
        names = ("image_size", "resize_size", "interpolation", "resize_mode", "decode_side", "grey_bits")
        return {
            "summary": f"RGB, {self.image_size} x {self.image_size} pixels; resized to {self.resize_size} "
            f"({self.interpolation}, {self.resize_mode})",
            "input": {
                "name": "pictures", "type": "uint8", "shape": ["batch", 3, *size], "channels": "RGB, 0 to 255",
            },
            "preprocess": {name: getattr(self, name) for name in names},
            "steps_before": self._steps(raw),
        }  # fmt: skip

    def _steps(self, raw: bool) -> list[str]:
        size, side, how = self.image_size, self.resize_size, f"antialiased {self.interpolation}"
        steps = [
            f"decode a JPEG at 1/2, 1/4 or 1/8 of its size (optional, as in training), if its shorter side keeps "
            f"{self.decode_side} pixels",
            "turn the picture as its EXIF orientation says",
            f"8-bit RGB: transparency on white, 16-bit grey times 255 / {2**self.grey_bits - 1} and rounded, the first "
            "frame of several",
        ]
        if raw:
            return steps
        return (
            steps
            + {
                "crop": [f"resize the shorter side to {side}, {how}", f"cut out the central {size} x {size} pixels"],
                "squash": [f"resize to {size} x {size} whatever the proportions, {how}"],
                "letterbox": [f"resize the longer side to {size}, {how}", f"fill up to {size} x {size} with black"],
            }[self.resize_mode]
        )

    def suggest(self, raw: Sequence[Any]) -> list[Setting]:
        """A smaller input size for small pictures, because enlarging them further does not help."""
        sides = [min(picture.shape[-2:]) for picture in raw]
        if not sides or statistics.median(sides) > SMALL_SIDE or self.image_size <= SIZE_FOR_SMALL:
            return []
        half = f"half of the pictures have a shorter side of at most {statistics.median(sides):.0f} pixels"
        return [Setting("model.image_size", SIZE_FOR_SMALL, f"{half}: a larger input is only slower")]
