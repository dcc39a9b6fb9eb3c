"""After Ctrl-C or SIGTERM a run can be resumed."""

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
    """Saves after the current step and exits with the usual exit code: 130 for Ctrl-C, 143 for SIGTERM.

    A validation that is running or due is finished first. A second Ctrl-C exits at once. With several processes, a
    signal to one is enough: they agree after every step. Lightning's own handler of SIGTERM does not save.
    It is a `Checkpoint` because Lightning calls these last, after all other callbacks.

    Args:
        file: the checkpoint to write.
    """

    def __init__(self, file: str):
        self.file = Path(file)
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._processes: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Installs the signal handlers. Lightning has set its own before, and restores the original ones later."""
        if trainer.world_size > 1:  # over CPUs (gloo): over GPUs, each step would wait until the GPU has finished it
            self._processes = torch.distributed.new_group(backend="gloo")
        if threading.current_thread() is not threading.main_thread():
            return  # Python handles signals only in the main thread
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
        """Saves and exits between two optimizer steps."""
        done = batch_idx + 1
        if done % trainer.accumulate_grad_batches or done == trainer.num_training_batches:
            return  # accumulated gradients are not used yet; or only the validation of the epoch is left
        # with check_val_every_n_epoch=null, Lightning counts the batches of the run, not of the epoch
        counted = done if trainer.check_val_every_n_epoch else trainer.fit_loop.total_batch_idx + 1
        if trainer.val_check_batch and counted % trainer.val_check_batch == 0:
            return
        self._exit_if_signalled(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves and exits between two epochs; a checkpoint from the start of an epoch would skip that epoch."""
        self._exit_if_signalled(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the signal handlers."""
        self._restore_handlers()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restores the signal handlers."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _exit_if_signalled(self, trainer: pl.Trainer) -> None:
        asked = self.received or 0
        if trainer.world_size > 1:
            most = torch.tensor(asked)
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX, self._processes)
            asked = int(most)
        if not asked:
            return
        if not trainer.fast_dev_run:
            trainer.save_checkpoint(self.file, weights_only=False)
        # 0 in other processes: if Lightning sees one fail, it kills the first, perhaps before its own exit
        raise SystemExit(128 + asked if trainer.local_rank == 0 else 0)
