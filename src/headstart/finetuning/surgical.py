"""Trains only named groups."""

from collections.abc import Sequence
from typing import Any

from headstart.errors import UsageError, nearest
from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class Surgical(StagedFinetuning):
    """Trains only the named groups of the backbone, and the head.

    Which groups help depends on how the new data differ: the first groups for changed inputs (noise, blur), the middle
    ones for new subgroups of the same classes, the last ones for changed labels (Lee et al. 2023,
    https://arxiv.org/abs/2210.11466).

    Args:
        groups: names as the table at the start of training shows them.
    """

    def __init__(self, groups: Sequence[str], **options: Any):
        super().__init__(**options)
        self.groups = [groups] if isinstance(groups, str) else list(groups)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage."""
        for name in self.groups:
            if name not in groups:
                raise UsageError(
                    f"finetuning.groups: the backbone has no group {name!r}{nearest(name, groups)}; "
                    f"it has {', '.join(groups)}"
                )
        return [Stage(frozenset(self.groups))]
