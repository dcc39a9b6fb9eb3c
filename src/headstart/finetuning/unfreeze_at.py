"""Trains the head first, then everything."""

from collections.abc import Sequence
from typing import Any

from headstart.finetuning.base import StagedFinetuning, at_least_one
from headstart.finetuning.stages import Stage


class UnfreezeAt(StagedFinetuning):
    """Only the head is trained before `epoch`, then all groups are.

    Args:
        epoch: the first epoch (0-based) in which the backbone is trained.
    """

    def __init__(self, epoch: int, **options: Any):
        super().__init__(**options)
        self.epoch = at_least_one("epoch", epoch)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """The head, then every group."""
        return [Stage(epochs=self.epoch), Stage(frozenset(groups))]
