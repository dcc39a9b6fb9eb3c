"""Contrastive fine-tuning."""

from collections.abc import Sequence

from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class Contrastive(StagedFinetuning):
    """Trains all groups on pairs of samples; the head is the closed-form head on the new features.

    The cosine of the features of two samples is pulled to 1 if they have the same class, otherwise to 0
    (`tasks/pairs.py`). Few labels make many pairs (SetFit; Tunstall et al. 2022, https://arxiv.org/abs/2209.11055).
    """

    contrastive = True

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage."""
        return [Stage(frozenset(groups), contrastive=True)]
