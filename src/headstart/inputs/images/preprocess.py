"""What a set of pretrained weights expects of a picture."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from headstart.errors import UsageError, nearest

INTERPOLATIONS = ("bilinear", "bicubic")
RESIZE_MODES = ("crop", "squash", "letterbox")


@dataclass(frozen=True)
class ImagePreprocess:
    """What a set of weights expects of a picture, up to normalisation, which the backbone does itself.

    Plain primitives only: `asdict` goes into a checkpoint, `ImagePreprocess(**saved)` brings it back.

    Args:
        image_size: side in pixels of the square the network sees.
        resize_size: in pixels, what the shorter side becomes before the centre is cut out (`resize_mode=crop` only).
        interpolation: `bilinear` or `bicubic`, always antialiased.
        resize_mode: `crop` keeps the proportions and loses the edges, `squash` keeps the edges and loses the
            proportions, `letterbox` keeps both and adds black bars.

    Raises:
        UsageError: a mode that does not exist or a size that is not possible.
    """

    image_size: int
    resize_size: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    resize_mode: Literal["crop", "squash", "letterbox"] = "crop"

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
        """How long in pixels the shorter side of a decoded picture must be: twice what becomes of it here.

        What the decoder of a JPEG leaves out beyond that, the resize would lose. These settings alone decide it, so
        that training, evaluation and every later use see the same pixels.
        """
        return 2 * (self.resize_size if self.resize_mode == "crop" else self.image_size)

    def resized_pixels(self, height: int, width: int) -> int:
        """Pixels of what the resize makes of a picture of this size; of a long strip it may be very many."""
        if self.resize_mode != "crop":
            return self.image_size**2
        return height * width * self.resize_size**2 // min(height, width) ** 2

    def __call__(self, image: Tensor) -> Tensor:
        """One picture, uint8 `(channels, height, width)`, to uint8 `(channels, image_size, image_size)`."""
        square = [self.image_size, self.image_size]
        if self.resize_mode == "squash":
            return self._resize(image, square)
        if self.resize_mode == "letterbox":
            # centre-cropping to more than there is pads with zeros
            return transforms.center_crop(self._resize(image, None, max_size=self.image_size), square)
        return transforms.center_crop(self._resize(image, [self.resize_size]), square)

    def _resize(self, image: Tensor, size: list[int] | None, max_size: int | None = None) -> Tensor:
        return transforms.resize(image, size, InterpolationMode(self.interpolation), max_size, antialias=True)
