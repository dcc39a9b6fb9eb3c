"""Trains everything."""

from collections.abc import Sequence

from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class Full(StagedFinetuning):
    """All layer groups are trained from the first step; the backbone has lower learning rates than the head."""

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage in which every group is trained."""
        return [Stage(frozenset(groups))]
