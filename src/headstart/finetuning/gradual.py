"""Unfreezes the backbone from the last groups to the first."""

from collections.abc import Sequence
from typing import Any

from headstart.finetuning.base import StagedFinetuning, at_least_one
from headstart.finetuning.stages import Stage


class Gradual(StagedFinetuning):
    """Trains the head first, then unfreezes more groups every few epochs, from the last to the first.

    Gradual unfreezing of ULMFiT (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.3): layers near the
    output are the least general and are changed first.

    Args:
        every: epochs between two unfreezings.
        groups: number of groups that are unfrozen at a time.
    """

    def __init__(self, every: int = 1, groups: int = 1, **options: Any):
        super().__init__(**options)
        self.every, self.groups = at_least_one("every", every), at_least_one("groups", groups)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """The head, then `self.groups` more in each stage."""
        starts = range(len(groups), 0, -self.groups)
        return [*(Stage(frozenset(groups[start:]), self.every) for start in starts), Stage(frozenset(groups))]
