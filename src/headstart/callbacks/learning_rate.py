"""The rate of every layer group over the run."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class LearningRates(Callback):
    """Logs `lr/<group>` every `log_every_n_steps` steps.

    Lightning's monitor would draw each group twice: its norms and biases are an optimizer group of their own, of the
    same rate, because they have no weight decay. A layer group of which nothing learns is drawn at 0, whatever rate
    waits for it.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Logs the rates the next step will use."""
        every = trainer.log_every_n_steps
        if not every or trainer.global_step % every or index % trainer.accumulate_grad_batches:
            return
        rates: dict[str, float] = {}
        for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
            name = f"lr/{group['name'].removesuffix('/no_decay')}"
            learns = any(parameter.requires_grad for parameter in group["params"])
            rates[name] = max(rates.get(name, 0.0), group["lr"] if learns else 0.0)
        for logger in trainer.loggers:
            logger.log_metrics(rates, step=trainer.global_step)
