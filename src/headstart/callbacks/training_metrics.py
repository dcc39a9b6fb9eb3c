"""What was counted while training, of whole epochs, whatever interrupted them."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning.callbacks import Callback
from torchmetrics import Metric


class TrainingMetrics(Callback):
    """Logs a task's `train_loss` and `train_metrics` at the end of an epoch, and keeps them in checkpoints inside one.

    Lightning's own logging of metrics comes after the epoch is saved, so that a run that is killed in between and goes
    on lacks the epoch in its curves. It also forgets what an interrupted epoch has counted.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forgets the last epoch's values: they say nothing of the weights that a validation inside this one saves."""
        for name in [name for name in trainer.callback_metrics if name.startswith("train/")]:
            del trainer.callback_metrics[name]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs the epoch, and begins anew; nothing where no batch was counted, as when an ended epoch ends again."""
        if not pl_module.train_loss.update_called:
            return
        metrics = {"train/loss": pl_module.train_loss.compute(), **pl_module.train_metrics.compute()}
        pl_module.train_loss.reset()
        pl_module.train_metrics.reset()
        # for whoever asks the trainer: progress bars, checkpoints, schedulers
        trainer.callback_metrics.update(metrics)
        row = {"epoch": trainer.current_epoch, **{name: value.item() for name, value in metrics.items()}}
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step - 1)
            logger.save()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps what was counted, of all processes together; nor may a kill cost rows that were logged before this."""
        for logger in trainer.loggers:
            logger.save()
        checkpoint["training_metrics"] = {name: _counted(metric) for name, metric in _metrics(pl_module)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Goes on counting from there; what all processes counted, the first one has."""
        if trainer.state.fn != "fit":
            return
        for name, metric in _metrics(pl_module):
            counted = checkpoint.get("training_metrics", {}).get(name)
            if counted:
                metric._update_count = 1  # what makes `update_called` true
            if counted and trainer.global_rank == 0:
                metric.load_state_dict(move_data_to_device(counted, metric.device))


def _metrics(task: pl.LightningModule) -> Iterator[tuple[str, Metric]]:
    yield "train/loss", task.train_loss
    yield from task.train_metrics.items(copy_state=False)


def _counted(metric: Metric) -> dict[str, Any]:
    """The state of a metric as plain data; empty where it counted nothing."""
    if not metric.update_called:
        return {}
    metric.persistent(True)
    with metric.sync_context():
        state = dict(metric.state_dict())
    metric.persistent(False)
    return state
