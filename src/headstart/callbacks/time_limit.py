"""Ends the training after a given time (`trainer.max_time`), and says how many epochs fit into it."""

import logging
import math
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities import rank_zero_only

from headstart.errors import duration_in_words
from headstart.finetuning.base import strategy_of

log = logging.getLogger(__name__)


class TimeLimit(Timer):
    """Lightning's timer, which ends the training with the first epoch that ends after the limit.

    Lightning's own `max_time` ends it within an epoch, so without its validation, and it cannot be resumed exactly.

    Args:
        duration: days:hours:minutes:seconds of training, validation included.
    """

    def __init__(self, duration: str):
        super().__init__(duration, interval="epoch", verbose=False)
        self.limit: float = self.time_remaining()
        self.began: float | None = None  # also in an epoch that is resumed in its middle
        self.has_estimated = False

    @property
    def state_key(self) -> str:
        """As in checkpoints from before this class, so that a resumed run counts the time before."""
        return Timer.__qualname__

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says when the training will end."""
        super().on_train_start(trainer, pl_module)
        spent = f" ({duration_in_words(self.time_elapsed())} before this start)" if self.time_elapsed() >= 1 else ""
        _say(
            f"trainer.max_time: after {duration_in_words(self.limit)}{spent} the training finishes its epoch and ends; "
            "validations count, the test at the end does not"
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the time."""
        self.began = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says once how many epochs fit, and at the end that the time has ended the training."""
        had_stopped = trainer.should_stop
        super().on_train_epoch_end(trainer, pl_module)
        done = trainer.current_epoch + 1
        if self.time_elapsed() >= self.limit:
            if not had_stopped and done != trainer.max_epochs:
                _say(_ended(self.limit, done, trainer))
        # an epoch of the closed-form head has no steps: its length says nothing about the others
        elif not self.has_estimated and self.began is not None and not strategy_of(trainer).current_stage.closed_form:
            self.has_estimated = True
            seconds = max(time.monotonic() - self.began, 1e-3)  # clocks of some systems move in steps
            _say(fitting(seconds, self.limit - self.time_elapsed(), done, trainer.max_epochs))


def fitting(epoch: float, left: float, done: int, max_epochs: int | None) -> str:
    """A sentence about how many epochs fit.

    Args:
        epoch: seconds of one.
        left: seconds until the limit.
        done: number of epochs that are over.
        max_epochs: of the run; None or -1: no limit.
    """
    possible = done + math.ceil(left / epoch)  # the epoch in which the time is over is the last one
    each = f"an epoch takes {duration_in_words(epoch)}"
    if max_epochs is None or max_epochs < 0:
        return f"{each}: about {possible} epochs fit into trainer.max_time"
    if possible < max_epochs:
        return f"{each}: only about {possible} of {max_epochs} epochs fit into trainer.max_time"
    return f"{each}: all {max_epochs} epochs fit into trainer.max_time"


def _ended(limit: float, done: int, trainer: pl.Trainer) -> str:
    of_all = f" of {trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    told = f"{duration_in_words(limit)} are over (trainer.max_time): the training ends after epoch {done}{of_all}"
    if of_all and trainer.lightning_module.make_scheduler is not None:
        told += (
            f". The learning rates would have fallen further: in the same time, trainer.max_epochs={done} lets them "
            "reach their lowest values"
        )
    return told


@rank_zero_only
def _say(sentence: str) -> None:
    log.info(sentence)
