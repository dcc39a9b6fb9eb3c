"""The inputs of a batch if the frozen layers were already applied to it."""

from typing import NamedTuple

from torch import Tensor


class Activations(NamedTuple):
    """The output of the frozen layer groups, one row per sample; its own type, so that it is not taken for inputs.

    It is a named tuple because Lightning moves named tuples to the device.
    """

    values: Tensor
    """`(batch, ...)`: the input of the first block behind the frozen ones, or the features."""
