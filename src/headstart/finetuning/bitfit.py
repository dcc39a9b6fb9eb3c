"""Trains only norms and biases."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class BitFit(StagedFinetuning):
    """Trains only the biases and the norm weights of all groups: about a thousandth of the parameters.

    BitFit (Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199); for convolutional networks, whose biases are in
    their BatchNorms, see also Frankle et al. 2021 (https://arxiv.org/abs/2003.00152).
    """

    def __init__(self, batch_norm: str | Sequence[str] = "affine", **options: Any):
        super().__init__(batch_norm, **options)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage."""
        return [Stage(frozenset(groups))]

    def is_trained(self, parameter: nn.Parameter) -> bool:
        """True for biases and norms: the parameters with one dimension."""
        return parameter.ndim <= 1
