"""From the top down, a few groups at a time."""

from collections.abc import Sequence
from typing import Any

from headstart.finetuning.base import StagedFinetuning, at_least_one
from headstart.finetuning.stages import Stage


class Gradual(StagedFinetuning):
    """The head first, then one more group from the top every few epochs, until all learn.

    Gradual unfreezing of ULMFiT (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, 3.3): what lies near the
    output is the least general and changes first.

    Args:
        every: epochs between two steps down.
        groups: how many groups wake at a time.
    """

    def __init__(self, every: int = 1, groups: int = 1, **options: Any):
        super().__init__(**options)
        self.every, self.groups = at_least_one("every", every), at_least_one("groups", groups)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """The head, then `self.groups` more from the top in each stage."""
        starts = range(len(groups), 0, -self.groups)
        return [*(Stage(frozenset(groups[start:]), self.every) for start in starts), Stage(frozenset(groups))]
