"""Transforms in two parts: a deterministic one, whose result can be cached, and a random one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Transform = Callable[[Any], Any]
Load = Callable[[int], Any]


@dataclass(frozen=True)
class SplitTransform:
    """A random transform of pictures, split into its deterministic and its random part.

    Args:
        deterministic: a picture of any size -> the same result every time, uint8 `(3, height, width)`; may be cached.
        random: the result of the deterministic part -> one picture of the input size; draws from torch's generator.
    """

    deterministic: Transform
    random: Transform

    def __call__(self, picture: Tensor) -> Tensor:
        """One picture, uint8 `(3, height, width)`, to uint8 `(3, image_size, image_size)`."""
        return self.random(interleaved(self.deterministic(picture)))


class Deterministic:
    """Loads sample `index` and applies the deterministic part of a transform.

    Args:
        load: index -> sample.
        transform: the deterministic part.
    """

    def __init__(self, load: Load, transform: Transform):
        self.load, self.transform = load, transform

    def __call__(self, index: int) -> Any:
        """Sample `index` after this part."""
        return interleaved(self.transform(self.load(index)))


def interleaved(picture: Any) -> Any:
    """A picture with its channels innermost in memory, as decoders write them; anything else as it is.

    So the random part gets the same input whether the deterministic part is computed now or its result is read back:
    the last bit of some operations depends on the memory format. Resizing is twice as fast in this one.
    """
    if not isinstance(picture, Tensor) or picture.ndim != 3 or picture.dtype != torch.uint8:
        return picture
    return picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def as_it_is(value: Any) -> Any:
    """Changes nothing."""
    return value
