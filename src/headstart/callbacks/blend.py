"""Averages the weights of the linear probe and of the fine-tuned model, and keeps the best model."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from headstart.errors import UsageError, counted
from headstart.files import read_torch_file
from headstart.finetuning.base import strategy_of
from headstart.metrics.scores import goodness
from headstart.runs.directory import LAST, PROBE
from headstart.runs.kept import AVERAGE, AVERAGE_IN_LIST, FINE_TUNED, LINEAR_PROBE, Kept

log = logging.getLogger(__name__)
SHARE = "share of fine-tuned"
"""Key beside the metrics of a saved average, so that it is not taken for the fine-tuned model."""


class Blend(Callback):
    """Keeps the model with the closed-form head and, after the fit, averages its weights with the fine-tuned weights.

    An average is often better than both models, also if the data change later (WiSE-FT; Wortsman et al. 2022,
    https://arxiv.org/abs/2109.01903, section 3). The model with the best validation score is saved as the run's best
    checkpoint. If several have this score, as often with few samples, the one with the lowest loss is saved.

    Args:
        folder: of the run's checkpoints.
        shares: of the fine-tuned weights in each average, above 0 and below 1.
    """

    def __init__(self, folder: str, shares: float | Sequence[float] = (0.25, 0.5, 0.75)):
        shares = [shares] if isinstance(shares, (int, float)) else list(shares)
        if not all(0 < share < 1 for share in shares):
            raise UsageError(f"callbacks.blend.shares={shares}: give numbers between 0 and 1")
        self.folder, self.shares = Path(folder), shares

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the model of the stage with the closed-form head."""
        if strategy_of(trainer).current_stage.closed_form and not trainer.fast_dev_run:
            trainer.save_checkpoint(self.folder / PROBE, weights_only=True)

    def after_fit(self, trainer: pl.Trainer, best: Path, monitor: str) -> Kept | None:
        """Validates the averages, replaces `best` if an average is better, and says which model was kept.

        If a run is resumed after that, nothing is compared again.

        Args:
            trainer: after its fit.
            best: the checkpoint with the best score so far.
            monitor: the metric to compare by.
        """
        task, data = trainer.lightning_module, trainer.datamodule
        if not (self.folder / PROBE).is_file() or not data.num_samples["val"]:
            return None
        probe, tuned = read_torch_file(self.folder / PROBE), read_torch_file(best)
        if SHARE in tuned["metrics"]:
            return Kept(_named(tuned["metrics"][SHARE]))
        kept = 1.0 if tuned["global_step"] > probe["global_step"] else 0.0
        if not kept and (self.folder / LAST).is_file():
            tuned = read_torch_file(self.folder / LAST)  # an average may still be better than the probe
        if tuned["global_step"] <= probe["global_step"]:
            return Kept(LINEAR_PROBE, why="nothing was fine-tuned")
        found = {0.0: probe["metrics"], 1.0: tuned["metrics"]}
        # a run that does not validate every epoch has no score of the probe, and perhaps none of its last weights
        tried = [*([] if monitor in probe["metrics"] else [0.0]), *self.shares, *([] if kept else [1.0])]
        log.info("validating %s of the linear probe and the fine-tuned model", counted(len(tried), "average"))
        for share in tried:
            task.load_state_dict(_between(probe["state_dict"], tuned["state_dict"], share))
            found[share] = _validated(trainer, task, data)
        winner, equals = _best(found, monitor)
        if winner != kept:
            task.load_state_dict(_between(probe["state_dict"], tuned["state_dict"], winner))
            trainer.callback_metrics.update({**found[winner], SHARE: winner})
            trainer.save_checkpoint(best, weights_only=True)
        why = f"the lowest val/loss of {equals} with the best {monitor}" if equals > 1 else f"the best {monitor}"
        return Kept(
            _named(winner),
            why,
            {_named(share, AVERAGE_IN_LIST): found[share][monitor] for share in sorted(found)},
            monitor,
        )


def _best(found: dict[float, dict[str, float]], monitor: str) -> tuple[float, int]:
    """The share with the best score (if equal, with the lowest loss), and how many have this score; NaN is worst."""
    scores = {share: goodness(metrics[monitor], monitor) for share, metrics in found.items()}
    equals = [share for share in found if scores[share] == max(scores.values())]
    return max(equals, key=lambda share: goodness(found[share]["val/loss"], "val/loss")), len(equals)


def _validated(trainer: pl.Trainer, task: pl.LightningModule, data: pl.LightningDataModule) -> dict[str, float]:
    """Validation metrics of the current weights; they are not added to the run's curves."""
    loggers, trainer.loggers = trainer.loggers, []
    try:
        (metrics,) = trainer.validate(task, datamodule=data, verbose=False)
    finally:
        trainer.loggers = loggers
    return metrics


def _named(share: float, average: str = AVERAGE) -> str:
    """The name of a model with this share of the fine-tuned weights."""
    return {0.0: LINEAR_PROBE, 1.0: FINE_TUNED}.get(share) or average.format(share)


def _between(one: dict[str, Tensor], other: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The average of two states; integer counters come from the second."""
    return {
        name: value.lerp(other[name].to(value), share) if value.is_floating_point() else other[name]
        for name, value in one.items()
    }
