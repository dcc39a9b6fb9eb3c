"""A moving average of the weights, which often scores better than the weights."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from headstart.errors import UsageError
from headstart.finetuning.base import strategy_of


class EMA(WeightAveraging):
    """Exponential moving average of all weights after every step; it is validated, saved and tested in their place.

    It restarts with every stage, because a stage before trained other layers. Its decay grows to its full value as in
    TensorFlow's `ExponentialMovingAverage(num_updates=...)`: an average over 1000 steps means nothing in a run of 200.
    Frozen weights stay equal to the bit.

    Args:
        decay: weight of the past, from 0 to below 1; 0.999 averages over about 1000 steps.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise UsageError(f"callbacks.ema.decay={decay}: give a number from 0 to below 1, such as 0.999")
        self.decay, self.stage = decay, 0
        super().__init__(multi_avg_fn=self.average)

    @torch.no_grad()
    def average(self, averages: Sequence[Tensor], values: Sequence[Tensor], updates: Tensor | int) -> None:
        """Moves each average (all of one type) towards its value; copies counters (`num_batches_tracked`)."""
        if averages[0].is_floating_point():
            decay = min(self.decay, (1 + int(updates)) / (10 + int(updates)))
            # not decay * average + (1 - decay) * value, which rounds even if both are equal
            torch._foreach_lerp_(averages, values, 1 - decay)
        else:
            torch._foreach_copy_(averages, values)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restarts the average when a stage begins."""
        strategy = strategy_of(trainer)
        if strategy.progress.stage != self.stage:
            self.stage = strategy.progress.stage
            self._average_model.n_averaged.zero_()  # then the next update copies the weights

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Uses the average in validations during a fit; a later validation uses the weights that it is given."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the weights."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores weights and average if training resumes; otherwise the average stays in use.

        Lightning's own method restores the weights, also in a `trainer.test()` after a fit.
        """
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """The state of the average as plain data."""
        return {**super().state_dict(), "stage": self.stage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state."""
        super().load_state_dict(state_dict)
        self.stage = state_dict["stage"]
