"""Linear probe, then fine-tuning."""

from collections.abc import Sequence
from typing import Any

from headstart.finetuning.base import StagedFinetuning, at_least_one
from headstart.finetuning.stages import Stage


class LinearProbeThenFinetune(StagedFinetuning):
    """First the best head on frozen features, then all groups are trained.

    If the head fits the pretrained features from the start, fine-tuning distorts the features less. This helps most on
    data that differ from the training data (LP-FT; Kumar et al. 2022, https://arxiv.org/abs/2202.10054).

    Args:
        solve_head: computes the closed-form head, in one epoch; False: only the head is trained, until validation stops
            improving.
        soften_head: after its stage, the closed-form head gets less confident, until its loss on the training samples
            is as high as on held-out ones. A head that separates few training samples leaves nothing to learn: the
            gradients of the backbone vanish. Not for numbers.
        contrastive: the fine-tuning is that of `finetuning/contrastive.py`: on pairs of samples. The head is then
            fitted anew, so it is not softened.
        head_patience: validations without improvement that end the stage of the head.
        head_epochs: maximum length of that stage; None: no limit.
        head_goal: the run ends if the head on frozen features reaches this monitored score; None: no goal.
    """

    def __init__(
        self,
        solve_head: bool = True,
        soften_head: bool = False,
        contrastive: bool = False,
        head_patience: int = 2,
        head_epochs: int | None = None,
        head_goal: float | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.solve_head, self.head_goal, self.contrastive = solve_head, head_goal, contrastive
        self.soften_head = soften_head and not contrastive
        self.head_patience = at_least_one("head_patience", head_patience)
        self.head_epochs = at_least_one("head_epochs", head_epochs)

    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """The head, then every group."""
        if self.solve_head:
            head = Stage(closed_form=True, softened=self.soften_head, goal=self.head_goal)
        else:
            head = Stage(epochs=self.head_epochs, patience=self.head_patience, goal=self.head_goal)
        return [head, Stage(frozenset(groups), contrastive=self.contrastive)]
