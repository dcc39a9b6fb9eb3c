"""Shows the progress of a run."""

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar


class ProgressBar(TQDMProgressBar):
    """Lightning's bar in a terminal; one line per epoch if the output goes to a file or a pipe."""

    def __init__(self, refresh_rate: int = 10):
        super().__init__(refresh_rate=refresh_rate)
        self.in_terminal = sys.stdout.isatty() and sys.stderr.isatty()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Switches the bar off outside a terminal, where it would write a line every second."""
        super().setup(trainer, pl_module, stage)
        if not self.in_terminal:
            self.disable()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the epoch's line."""
        # in every process, although only one shows them: reading the metrics synchronises them between processes
        metrics = trainer.callback_metrics
        super().on_train_epoch_end(trainer, pl_module)
        if not self.in_terminal and trainer.is_global_zero:
            score, _ = pl_module.objective.main_score
            shown = ("train/loss", f"train/{score}", "val/loss", f"val/{score}")
            values = [f"{name} {metrics[name]:.4f}" for name in shown if name in metrics]
            sys.stderr.write(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {', '.join(values)}\n")

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The metrics at the right of the bar, without the logger's version number."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
