"""Only the head learns."""

from collections.abc import Sequence

from headstart.finetuning.base import StagedFinetuning


class FeatureExtraction(StagedFinetuning):
    """The backbone stays as it is; the head learns on its features."""

    def learning(self, epoch: int, groups: Sequence[str]) -> set[str]:
        """No group of the backbone, in any epoch."""
        return set()
