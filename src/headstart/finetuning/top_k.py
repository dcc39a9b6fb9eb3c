"""Trains only the last groups."""

from collections.abc import Sequence
from typing import Any

from headstart.errors import UsageError
from headstart.finetuning.base import StagedFinetuning, at_least_one
from headstart.finetuning.stages import Stage


class TopK(StagedFinetuning):
    """Trains the last `k` groups of the backbone, and the head.

    Args:
        k: number of groups, at least 1 (for 0 use `feature_extraction`).
    """

    def __init__(self, k: int, **options: Any):
        super().__init__(**options)
        self.k = at_least_one("k", k)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage."""
        if self.k > len(groups):
            raise UsageError(f"finetuning.k={self.k}: the backbone has {len(groups)} groups: {', '.join(groups)}")
        return [Stage(frozenset(groups[-self.k :]))]
