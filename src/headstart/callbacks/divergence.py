"""Ends a run whose loss is NaN or infinite."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from headstart.errors import Failure
from headstart.files import relative_to_cwd

EVERY = 20
"""Batches between two looks at the loss: on a GPU, each look waits until all steps before it are done."""


class Divergence(Callback):
    """Raises a `Failure` soon after the loss became NaN or infinite, before a checkpoint of such weights is written.

    Without it, all epochs would run, and the run would end as if all were well. With a gradient scaler (fp16) a single
    loss may be infinite: the scaler then skips the step, and the weights decide. With several processes, all stop if
    the loss of one is NaN or infinite: otherwise the others would wait for it for ever.
    """

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the sum of the losses of the epoch: it is NaN or infinite if one loss was."""
        last = batch_idx + 1 == trainer.num_training_batches or trainer.should_stop
        if last or batch_idx % EVERY == EVERY - 1 or _validates_now(trainer, batch_idx):
            self._check(trainer, pl_module, pl_module.train_loss.mean_value, "training")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks at the validation loss: it shows weights that are NaN or infinite, even if no training loss was."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            loss = trainer.callback_metrics.get("val/loss", torch.tensor(0.0))
            self._check(trainer, pl_module, loss, "validation")

    def _check(self, trainer: pl.Trainer, task: pl.LightningModule, loss: torch.Tensor, of: str) -> None:
        diverged = not loss.isfinite() and not (_scaler(trainer) and _weights_are_finite(task))
        # costs little: every process is here after the same batch, and has waited for its own loss already
        if not trainer.strategy.reduce_boolean_decision(diverged, all=False):
            return
        # as in `Interruption`: if Lightning sees another process fail, it kills the first, perhaps before its message
        if trainer.local_rank != 0:
            raise SystemExit(0)
        optimizer = trainer.optimizers[0]
        rate = max(group.get("initial_lr", group["lr"]) for group in optimizer.param_groups)
        precision = "" if trainer.precision == "32-true" else ", or trainer.precision=32-true"
        raise Failure(
            f"the training diverged: by step {trainer.global_step} (epoch {trainer.current_epoch + 1}) the {of} loss "
            f"is NaN or infinite. Try a lower learning rate, such as optimizer.lr={rate / 10:.2g}{precision}. "
            f"{_kept(trainer)}"
        )


def _validates_now(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a validation within the epoch follows this batch, after which a checkpoint is written.

    Batches are counted as in Lightning: in the epoch, or in the run if `check_val_every_n_epoch` is None.
    """
    every = trainer.val_check_batch
    if not every or math.isinf(every):
        return False
    index = trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return (index + 1) % int(every) == 0


def _scaler(trainer: pl.Trainer) -> bool:
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _weights_are_finite(task: pl.LightningModule) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in task.parameters() if parameter.requires_grad)


def _kept(trainer: pl.Trainer) -> str:
    """What the run leaves."""
    for callback in trainer.checkpoint_callbacks:
        path, score = getattr(callback, "best_model_path", ""), getattr(callback, "best_model_score", None)
        if path and score is not None and callback.monitor:
            file = relative_to_cwd(Path(path))
            return f"{file} holds the best model before that ({callback.monitor} {float(score):.4f})"
    return "No model was saved before that"
