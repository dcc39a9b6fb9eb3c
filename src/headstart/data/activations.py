"""What a batch brings instead of pictures when a frozen part of the network has already seen them."""

from typing import NamedTuple

from torch import Tensor


class Activations(NamedTuple):
    """The output of the frozen layer groups, one row a sample; a type of its own, so that nobody takes it for pictures.

    A named tuple because Lightning moves these to the device.
    """

    values: Tensor
    """`(batch, ...)`: what the first block behind the frozen ones is given, or the features."""
