"""Histograms of weights and gradients for TensorBoard."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch.optim import Optimizer

from headstart.errors import UsageError


class Histograms(Callback):
    """Writes a histogram of each trained parameter and of its gradient at the last step of an epoch.

    Args:
        every: number of epochs between histograms; for a large network, one set takes some MB and some seconds.
    """

    def __init__(self, every: int = 1):
        if every < 1:
            raise UsageError(f"callbacks.histograms.every={every}: give a number of epochs, 1 or more")
        self.every = every
        self.boards: list[TensorBoardLogger] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises a UsageError if the run has no TensorBoard logger."""
        self.boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not self.boards:
            raise UsageError("callbacks=histograms shows them in TensorBoard: use logger=tensorboard or default")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Writes them; the gradients are not clipped yet."""
        if not trainer.is_last_batch or trainer.current_epoch % self.every:
            return
        for writer in (board.experiment for board in self.boards):
            for name, parameter in pl_module.named_parameters():
                if parameter.requires_grad and parameter.grad is not None:
                    writer.add_histogram(f"weights/{name}", parameter.detach().float(), trainer.global_step)
                    writer.add_histogram(f"gradients/{name}", parameter.grad.float(), trainer.global_step)
