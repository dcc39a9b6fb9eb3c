"""Training metrics of whole epochs, also if a run was interrupted inside an epoch."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torchmetrics import Metric


class TrainingMetrics(Callback):
    """Logs a task's `train_loss` and `train_metrics` at the end of an epoch, and saves them in checkpoints.

    Lightning logs metrics after it has saved the epoch: if the run is killed in between and resumed, its curves lack
    this epoch. Lightning also loses the counts of an interrupted epoch.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drops the values of the last epoch: they do not belong to weights that are saved during this epoch."""
        for name in [name for name in trainer.callback_metrics if name.startswith("train/")]:
            del trainer.callback_metrics[name]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs the epoch and resets the metrics; not if no batch was counted, as when a finished epoch ends again."""
        if not pl_module.train_loss.update_called:
            return
        metrics = {"train/loss": pl_module.train_loss.compute()}
        counted = pl_module.train_metrics.values(copy_state=False)
        if any(metric.update_called for metric in counted):  # a contrastive stage has only the loss
            metrics |= pl_module.train_metrics.compute()
        pl_module.train_loss.reset()
        pl_module.train_metrics.reset()
        # for progress bars, checkpoints and schedulers, which ask the trainer
        trainer.callback_metrics.update(metrics)
        row = {"epoch": trainer.current_epoch, **{name: value.item() for name, value in metrics.items()}}
        for logger in trainer.loggers:
            step = trainer.global_step - 1
            known = _logs_epochs(trainer) and isinstance(logger, TensorBoardLogger)
            logger.log_metrics({k: v for k, v in row.items() if not (known and k == "epoch")}, step=step)
            logger.save()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Saves the counts of all processes together, and first the rows of the loggers, so that a kill loses none."""
        for logger in trainer.loggers:
            logger.save()
        checkpoint["training_metrics"] = {name: _counted(metric) for name, metric in _metrics(pl_module)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores the counts; the first process takes the counts of all."""
        if trainer.state.fn != "fit":
            return
        for name, metric in _metrics(pl_module):
            counted = checkpoint.get("training_metrics", {}).get(name)
            if counted:
                metric._update_count = 1  # makes `update_called` true
            if counted and trainer.global_rank == 0:
                metric.load_state_dict(move_data_to_device(counted, metric.device))


def _logs_epochs(trainer: pl.Trainer) -> bool:
    """Whether Lightning logs the number of the epoch: with each validation. TensorBoard would show it twice."""
    return trainer.enable_validation


def _metrics(task: pl.LightningModule) -> Iterator[tuple[str, Metric]]:
    yield "train/loss", task.train_loss
    yield from task.train_metrics.items(copy_state=False)


def _counted(metric: Metric) -> dict[str, Any]:
    """The state of a metric as plain data; empty if it counted nothing."""
    if not metric.update_called:
        return {}
    metric.persistent(True)
    with metric.sync_context():
        state = dict(metric.state_dict())
    metric.persistent(False)
    return state
