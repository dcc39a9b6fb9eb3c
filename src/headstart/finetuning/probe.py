"""Linear probe."""

from collections.abc import Sequence

from headstart.finetuning.base import StagedFinetuning
from headstart.finetuning.stages import Stage


class Probe(StagedFinetuning):
    """Computes a closed-form head: a logistic regression on frozen features (`heads/logistic_regression.py`)."""

    trains_backbone = False

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """One epoch without optimizer steps."""
        return [Stage(closed_form=True)]
