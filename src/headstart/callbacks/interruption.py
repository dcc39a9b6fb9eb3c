"""Ctrl-C and SIGTERM leave a run that can go on."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(Checkpoint):
    """Saves after the step under way and leaves with the customary exit code: 130 for Ctrl-C, 143 for SIGTERM.

    A validation under way, or one that is due, is finished first. The second Ctrl-C leaves at once. Of several
    processes one signalled is enough: they agree after every step. Lightning's own handler of SIGTERM does not save.
    A `Checkpoint` because Lightning calls these last, when everything else has taken note of the step or epoch.

    Args:
        file: the checkpoint to write.
    """

    def __init__(self, file: str):
        self.file = Path(file)
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the signals over; Lightning has set its handlers by now and puts back what was before them."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python gives signals to the main thread alone
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if number == signal.SIGINT:
                raise KeyboardInterrupt
        self.received = number
        log.warning("%s: stopping after this step; Ctrl-C again stops at once", signal.Signals(number).name)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and leaves between two optimizer steps."""
        done = batch_idx + 1
        if done % trainer.accumulate_grad_batches or done == trainer.num_training_batches:
            return  # gradients are gathered but not yet used; or the epoch is complete but for its validation
        # without epochs to count by, Lightning validates after so many batches of the run
        counted = done if trainer.check_val_every_n_epoch else trainer.fit_loop.total_batch_idx + 1
        if trainer.val_check_batch and counted % trainer.val_check_batch == 0:
            return
        self._leave_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves and leaves between two epochs: here, for what is saved at the start of an epoch skips that epoch."""
        self._leave_if_asked(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the signals back."""
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _leave_if_asked(self, trainer: pl.Trainer) -> None:
        asked = self.received or 0
        if trainer.world_size > 1:
            asked = torch.tensor(asked, device=trainer.strategy.root_device)
            asked = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if not asked:
            return
        if not trainer.fast_dev_run:
            trainer.save_checkpoint(self.file, weights_only=False)
        # Lightning kills the first process when it sees that another one failed, which may be before the first has left
        raise SystemExit(128 + asked if trainer.local_rank == 0 else 0)
