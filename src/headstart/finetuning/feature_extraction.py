"""Trains only the head."""

from collections.abc import Sequence

from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class FeatureExtraction(StagedFinetuning):
    """The backbone is frozen; the head is trained on its features."""

    trains_backbone = False

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One stage in which no group of the backbone is trained."""
        return [Stage()]
