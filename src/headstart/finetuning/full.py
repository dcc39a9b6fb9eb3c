"""Everything learns."""

from collections.abc import Sequence

from headstart.finetuning.base import StagedFinetuning


class Full(StagedFinetuning):
    """All layer groups learn from the first step, the backbone's at their lower rates."""

    def learning(self, epoch: int, groups: Sequence[str]) -> set[str]:
        """Every group, in every epoch."""
        return set(groups)
