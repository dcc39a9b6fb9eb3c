"""Mirror images at test time."""

from typing import Any

from torch import Tensor

from headstart.errors import UsageError


def with_mirror_image(pictures: Any) -> list[Tensor]:
    """A batch of pictures `(batch, 3, height, width)` -> the batch and its mirror image (`test_time=flip`).

    Raises:
        UsageError: the batch does not hold pictures.
    """
    if not isinstance(pictures, Tensor) or pictures.ndim != 4:
        raise UsageError("test_time=flip: only pictures have a mirror image")
    return [pictures, pictures.flip(-1)]


with_mirror_image.words = "take the mean of the logits of the picture and of its mirror image"
