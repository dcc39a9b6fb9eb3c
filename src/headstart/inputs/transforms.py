"""Transforms of a sample with two parts: a deterministic one, whose result can be cached, and a random one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Transform = Callable[[Any], Any]
Load = Callable[[int], Any]


@dataclass(frozen=True)
class SplitTransform:
    """A random transform of pictures whose first part is deterministic.

    Args:
        fixed: the deterministic part: a picture of any size -> uint8 `(3, height, width)`; its result can be cached.
        random: result of the fixed part -> one picture of the input size; draws from torch's generator.
    """

    fixed: Transform
    random: Transform

    def __call__(self, picture: Tensor) -> Tensor:
        """One picture, uint8 `(3, height, width)`, to uint8 `(3, image_size, image_size)`."""
        return self.random(interleaved(self.fixed(picture)))


class Fixed:
    """Loads samples and applies the fixed part of a transform.

    Args:
        load: index -> sample.
        transform: the fixed part.
    """

    def __init__(self, load: Load, transform: Transform):
        self.load, self.transform = load, transform

    def __call__(self, index: int) -> Any:
        """Sample `index` after the transform."""
        return interleaved(self.transform(self.load(index)))


def interleaved(picture: Any) -> Any:
    """A picture with its channels last in memory, as decoders write it; anything else unchanged.

    So the random part gives the same result for a computed and for a cached picture: the last bit of some operations
    depends on the memory format. Resizing is also twice as fast with this format.
    """
    if not isinstance(picture, Tensor) or picture.ndim != 3 or picture.dtype != torch.uint8:
        return picture
    return picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def as_it_is(value: Any) -> Any:
    """Returns the value unchanged."""
    return value
