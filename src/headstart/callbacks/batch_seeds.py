"""Seeds each training batch, so that its random numbers depend only on its place in the run."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from headstart.seeds import derive_seed, reseed


class BatchSeeds(Callback):
    """Seeds dropout and all other random operations of a step from seed, process, epoch and batch.

    So a resumed run draws the same random numbers as an uninterrupted run, and no generator state has to be saved.
    (`data/sampling.py` does the same for the order and the augmentation of samples.)
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Seeds the batch."""
        reseed(derive_seed(self.seed, trainer.global_rank, trainer.current_epoch, index))
