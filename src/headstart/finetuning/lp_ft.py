"""Linear probing, then fine-tuning."""

from collections.abc import Sequence
from typing import Any

from headstart.finetuning.base import Stage, StagedFinetuning, at_least_one


class LinearProbeThenFinetune(StagedFinetuning):
    """The head learns alone until validation stops improving, then all groups learn.

    A head that fits the pretrained features before they move distorts them less, which helps most on data unlike the
    training data (LP-FT; Kumar et al. 2022, https://arxiv.org/abs/2202.10054).

    Args:
        head_patience: validations without improvement that end the head's stage.
        head_epochs: its length at most; None: no limit.
    """

    def __init__(self, head_patience: int = 2, head_epochs: int | None = None, **options: Any):
        super().__init__(**options)
        self.head_patience = at_least_one("head_patience", head_patience)
        self.head_epochs = at_least_one("head_epochs", head_epochs)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """The head to convergence, then every group."""
        return [Stage(epochs=self.head_epochs, patience=self.head_patience), Stage(frozenset(groups))]
