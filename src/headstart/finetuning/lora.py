"""Trains only low-rank updates."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import nn

from headstart.backbones.low_rank import low_rank_parameters
from headstart.cli.early_checks import NO_LOW_RANK
from headstart.errors import UsageError
from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class LoRA(StagedFinetuning):
    """Trains only the low-rank updates of the matrices in all groups of a transformer (`model.lora_rank`).

    LoRA (Hu et al. 2022, https://arxiv.org/abs/2106.09685): the optimizer keeps no state for the matrices themselves.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.low_rank: set[int] = set()

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage."""
        return [Stage(frozenset(groups))]

    def make_plan(self, task: pl.LightningModule) -> None:
        """Plans the stages and finds the low-rank updates.

        Raises:
            UsageError: the backbone has none.
        """
        super().make_plan(task)
        self.low_rank = {id(parameter) for parameter in low_rank_parameters(task.backbone)}
        if not self.low_rank:
            raise UsageError(NO_LOW_RANK)

    def is_trained(self, parameter: nn.Parameter) -> bool:
        """True for the low-rank updates."""
        return id(parameter) in self.low_rank
