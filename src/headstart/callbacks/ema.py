"""An average of the weights, which is often better than the weights."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from headstart.errors import UsageError
from headstart.finetuning.base import strategy_of


class EMA(WeightAveraging):
    """Exponential moving average of all weights, taken after every step; validated, saved and tested instead of them.

    It starts anew with every stage, since the weights of the stage before belong to another optimisation, and rises to
    its full length as in TensorFlow's `ExponentialMovingAverage(num_updates=...)`: an average over 1000 steps means
    nothing in a run of 200. What is frozen stays equal to the bit.

    Args:
        decay: weight of the past, 0 to below 1; 0.999 averages over about 1000 steps.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise UsageError(f"callbacks.ema.decay={decay}: give a number from 0 to below 1, such as 0.999")
        self.decay, self.stage = decay, 0
        super().__init__(multi_avg_fn=self.average)

    @torch.no_grad()
    def average(self, averages: Sequence[Tensor], values: Sequence[Tensor], updates: Tensor | int) -> None:
        """Moves each average (all of one type) towards its value, counters (`num_batches_tracked`) onto it."""
        if averages[0].is_floating_point():
            decay = min(self.decay, (1 + int(updates)) / (10 + int(updates)))
            # not decay * average + (1 - decay) * value, which rounds even where both are equal
            torch._foreach_lerp_(averages, values, 1 - decay)
        else:
            torch._foreach_copy_(averages, values)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts anew where a stage does."""
        strategy = strategy_of(trainer)
        if strategy.progress.stage != self.stage:
            self.stage = strategy.progress.stage
            self._average_model.n_averaged.zero_()  # the next update copies

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average takes the place of the weights in a fit; who validates after it brings weights of their own."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """And gives it back."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes weights and average up again when training goes on; elsewhere the average is what was asked for.

        Lightning's puts the weights themselves back, also in the `trainer.test()` that follows a fit.
        """
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """How far the average has come, as plain data."""
        return {**super().state_dict(), "stage": self.stage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        super().load_state_dict(state_dict)
        self.stage = state_dict["stage"]
