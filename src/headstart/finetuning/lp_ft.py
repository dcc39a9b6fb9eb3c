"""Linear probing, then fine-tuning."""

from collections.abc import Sequence
from typing import Any

from headstart.finetuning.base import StagedFinetuning, at_least_one
from headstart.finetuning.stages import Stage


class LinearProbeThenFinetune(StagedFinetuning):
    """The best head on the pretrained features first, then all groups learn.

    A head that fits the pretrained features before they move distorts them less, which helps most on data unlike the
    training data (LP-FT; Kumar et al. 2022, https://arxiv.org/abs/2202.10054).

    Args:
        solve_head: computes the head, in one epoch; False: it learns alone until validation stops improving.
        head_patience: validations without improvement that end the stage in which it learns.
        head_epochs: the length of that stage at most; None: no limit.
        head_goal: score of the monitored metric with which the head alone is good enough and ends the run; None: none.
    """

    def __init__(
        self,
        solve_head: bool = True,
        head_patience: int = 2,
        head_epochs: int | None = None,
        head_goal: float | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.solve_head, self.head_goal = solve_head, head_goal
        self.head_patience = at_least_one("head_patience", head_patience)
        self.head_epochs = at_least_one("head_epochs", head_epochs)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """The head, then every group."""
        if self.solve_head:
            head = Stage(solved=True, goal=self.head_goal)
        else:
            head = Stage(epochs=self.head_epochs, patience=self.head_patience, goal=self.head_goal)
        return [head, Stage(frozenset(groups))]
