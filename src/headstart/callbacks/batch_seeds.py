"""What is random in training depends on where a run stands alone."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from headstart.seeds import derive_seed, reseed


class BatchSeeds(Callback):
    """Seeds dropout and everything else that is random in a step by run, process, epoch and batch.

    So a run that goes on from a checkpoint draws what it would have drawn, whatever was drawn in between, and no state
    of a generator need be kept. (Order and augmentation of the samples do the same: `data/sampling.py`.)
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Seeds the batch."""
        reseed(derive_seed(self.seed, trainer.global_rank, trainer.current_epoch, index))
