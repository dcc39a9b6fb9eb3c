"""What is done to a sample in two parts: what comes out the same every time, and what is random."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Transform = Callable[[Any], Any]
Load = Callable[[int], Any]


@dataclass(frozen=True)
class SplitTransform:
    """A random transform of pictures that tells how far it is not random.

    Args:
        fixed: a picture of any size -> the same result every time, uint8 `(3, height, width)`; it may be remembered.
        random: what the fixed part made -> one picture of the input size; draws from torch's generator.
    """

    fixed: Transform
    random: Transform

    def __call__(self, picture: Tensor) -> Tensor:
        """One picture, uint8 `(3, height, width)`, to uint8 `(3, image_size, image_size)`."""
        return self.random(interleaved(self.fixed(picture)))


class Fixed:
    """Sample `index`, after the fixed part of a transform.

    Args:
        load: index -> sample.
        transform: the fixed part.
    """

    def __init__(self, load: Load, transform: Transform):
        self.load, self.transform = load, transform

    def __call__(self, index: int) -> Any:
        """What becomes of sample `index`."""
        return interleaved(self.transform(self.load(index)))


def interleaved(picture: Any) -> Any:
    """A picture with its channels innermost in memory, as decoders write them; anything else as it is.

    So the random part sees the same whether the fixed one was computed now or read back: the last bit of some
    operations depends on the memory format, and resizing is twice as fast in this one.
    """
    if not isinstance(picture, Tensor) or picture.ndim != 3 or picture.dtype != torch.uint8:
        return picture
    return picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def as_it_is(value: Any) -> Any:
    """Changes nothing."""
    return value
