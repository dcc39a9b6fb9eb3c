"""The stages of a run, and its progress in them."""

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.errors import counted
from headstart.metrics.scores import is_better


@dataclass(frozen=True)
class Stage:
    """Consecutive epochs in which the same groups are trained.

    Args:
        trained: names of the backbone's groups that are trained; the head is not named.
        epochs: maximum length; None: no limit.
        patience: validations without improvement, counted within the stage, that end it before the next epoch.
        closed_form: the closed-form head is computed (`callbacks/closed_form_head.py`) and nothing is trained. The
            stage is one epoch without optimizer steps, so that the head is validated and saved like after other epochs.
        softened: after the stage, the outputs of the closed-form head are divided by a number, so that its loss on the
            training samples is as high as on held-out ones.
        contrastive: the trained groups learn from pairs of samples (`tasks/pairs.py`) in batches with equally frequent
            classes. The head is not trained: the closed-form head is fitted before each validation and checkpoint.
        goal: the run ends if the monitored metric reaches this score within the stage; None: no goal.
    """

    trained: frozenset[str] = frozenset()
    epochs: int | None = None
    patience: int | None = None
    closed_form: bool = False
    softened: bool = False
    contrastive: bool = False
    goal: float | None = None

    def frozen_prefix(self, groups: Sequence[str]) -> int:
        """Number of groups, named from the stem on, before the first one that is trained."""
        return next((place for place, name in enumerate(groups) if name in self.trained), len(groups))


@dataclass
class Progress:
    """The progress of a run in its stages; a checkpoint saves it.

    Args:
        stage: index of the current stage, from 0.
        began: first epoch of the stage.
        best: best score of the monitored metric in the stage.
        waited: validations since the best score.
    """

    stage: int = 0
    began: int = 0
    best: float | None = None
    waited: int = 0

    def count(self, score: float, monitor: str) -> None:
        """Counts one validation with this score of the metric `monitor`; NaN is no improvement."""
        if is_better(score, self.best, monitor):
            self.best, self.waited = score, 0
        else:
            self.waited += 1

    def end_of(self, stage: Stage, epoch: int) -> str | None:
        """The reason why the stage ends before `epoch`; None if it continues."""
        if stage.closed_form and epoch > self.began:
            return "the closed-form head is computed"
        if stage.epochs is not None and epoch - self.began >= stage.epochs:
            return "1 epoch is over" if stage.epochs == 1 else f"{stage.epochs} epochs are over"
        if stage.patience is not None and self.waited >= stage.patience:
            return f"no improvement in {counted(self.waited, 'validation')}"
        return None
