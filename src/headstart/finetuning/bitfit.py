"""Norms and biases only."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class BitFit(StagedFinetuning):
    """All groups learn, but of each only the biases and the weights of its norms: a thousandth of the parameters.

    BitFit (Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199); for convolutional networks, whose biases are in
    their BatchNorms, compare Frankle et al. 2021 (https://arxiv.org/abs/2003.00152).
    """

    def __init__(self, batch_norm: str | Sequence[str] = "affine", **options: Any):
        super().__init__(batch_norm, **options)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage."""
        return [Stage(frozenset(groups))]

    def learns(self, parameter: nn.Parameter) -> bool:
        """Biases and norms are the parameters of one dimension."""
        return parameter.ndim <= 1
