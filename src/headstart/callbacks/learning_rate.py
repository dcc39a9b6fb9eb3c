"""Logs the learning rate of every layer group over the run."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class LearningRates(Callback):
    """Logs `lr/<group>` every `log_every_n_steps` steps.

    Lightning's monitor would draw each layer group twice: norms and biases have no weight decay, so they are a separate
    optimizer group with the same learning rate. A frozen layer group is logged as 0.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Logs the learning rates of the next step."""
        every = trainer.log_every_n_steps
        if not every or trainer.global_step % every or index % trainer.accumulate_grad_batches:
            return
        rates: dict[str, float] = {}
        for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
            name = f"lr/{group['name'].removesuffix('/no_decay')}"
            is_trained = any(parameter.requires_grad for parameter in group["params"])
            rates[name] = max(rates.get(name, 0.0), group["lr"] if is_trained else 0.0)
        for logger in trainer.loggers:
            logger.log_metrics(rates, step=trainer.global_step)
