"""Spans of a run, and where it stands in them."""

from dataclasses import dataclass

from headstart.metrics.scores import is_better


@dataclass(frozen=True)
class Stage:
    """A span of epochs in which the set of learning groups does not change.

    Args:
        learning: names of the backbone's groups that learn; the head always does.
        epochs: how long it lasts at most.
        patience: validations without improvement, counted within the stage, that end it before the next epoch.
        solved: the head is computed in closed form (`callbacks/closed_form_head.py`), and nothing is trained: one epoch
            that takes no step, so that the solution is validated and kept like any other epoch.
        goal: score of the monitored metric that, reached within the stage, ends the run; None: none does.
    """

    learning: frozenset[str] = frozenset()
    epochs: int | None = None
    patience: int | None = None
    solved: bool = False
    goal: float | None = None


@dataclass
class Progress:
    """Where a run stands in its stages: all that a strategy remembers, and what a checkpoint keeps of it.

    Args:
        stage: 0-based.
        began: epoch in which the stage began.
        best: best monitored score since then.
        waited: validations since that score.
    """

    stage: int = 0
    began: int = 0
    best: float | None = None
    waited: int = 0

    def count(self, score: float, monitor: str) -> None:
        """Takes the score of one validation, of the metric `monitor`; NaN is no improvement."""
        if is_better(score, self.best, monitor):
            self.best, self.waited = score, 0
        else:
            self.waited += 1

    def end_of(self, stage: Stage, epoch: int) -> str | None:
        """Why the stage is over before `epoch` begins; None while it goes on."""
        if stage.solved and epoch > self.began:
            return "the head is solved"
        if stage.epochs is not None and epoch - self.began >= stage.epochs:
            return f"{stage.epochs} epochs are over"
        if stage.patience is not None and self.waited >= stage.patience:
            return f"no improvement in {self.waited} validations"
        return None
