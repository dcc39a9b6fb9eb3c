"""Everything learns."""

from collections.abc import Sequence

from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class Full(StagedFinetuning):
    """All layer groups learn from the first step, the backbone's at their lower rates."""

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage in which every group learns."""
        return [Stage(frozenset(groups))]
