"""Finds a learning rate before training: it rises with each step, and the curve of the loss shows a good value.

Lightning's `LearningRateFinder` is not used: it sets one learning rate for all layer groups (here each has its own),
it changes the model and the trainer, and it does not support stages and caches.
"""

import logging
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng

from headstart.data.module import DataModule
from headstart.errors import UsageError
from headstart.finetuning.base import strategy_of
from headstart.training.rehearsal import rehearse

log = logging.getLogger(__name__)
SMOOTHING = 0.9  # weight of the earlier losses in the moving average
DIVERGED = 4  # times the lowest smoothed loss: the test stops there
FIRST_STEPS = 10  # steps in which the smoothed loss is too noisy to stop the test


def find_learning_rate(cfg: DictConfig, data: DataModule) -> float:
    """The learning rate that a range test suggests; the test also draws its curve into the run, lr_find.png."""
    test, started = RangeTest(), time.monotonic()
    log.info("searching a learning rate: a range test of at most 100 steps")
    with isolate_rng():
        rehearse(cfg, data, test)
    found = float(f"{test.suggestion():.2g}")
    log.info(
        "optimizer.lr=%g instead of %g: a range test of %d steps, %.0f s (lr_find.png)",
        *(found, cfg.optimizer.lr, len(test.losses), time.monotonic() - started),
    )
    if rank_zero_only.rank == 0:
        test.draw(Path(cfg.paths.run) / "lr_find.png")
    return found


class RangeTest(Callback):
    """The learning rate range test (Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3).

    The learning rate of the head rises exponentially from `lowest` to `highest`; the ratios of the other layer groups
    to it stay. The test ruins the weights, so use a separate trainer, without scheduler and loggers, and throw the task
    away. The run stays in the first stage of the strategy. Place this callback behind the strategy.

    Args:
        steps: optimizer steps at most; fewer if the loss diverges.
        lowest: learning rate of the first step.
        highest: learning rate of the last step.

    Attributes:
        learning_rates: learning rate of the head in each step.
        losses: loss of each step: the mean over its training batches (`trainer.accumulate_grad_batches`).
    """

    def __init__(self, steps: int = 100, lowest: float = 1e-6, highest: float = 10.0):
        self.steps, self.lowest, self.highest = steps, lowest, highest
        self.learning_rates: list[float] = []
        self.losses: list[float] = []
        self.ratios: list[float] | None = None
        self.gathered: list[float] = []  # losses of batches since the last step

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Makes the first stage the only one, without an end.

        Raises:
            UsageError: that stage computes the closed-form head, or is contrastive.
        """
        strategy = strategy_of(trainer)
        if strategy.plan[0].closed_form:
            raise UsageError(
                "lr_find=true: a closed-form head has its lowest training loss before the first step, so no learning "
                "rate can lower it. Give optimizer.lr=<number>, or train the head: finetuning=feature_extraction, or "
                "finetuning.solve_head=false with finetuning=lp_ft"
            )
        if strategy.plan[0].contrastive:
            raise UsageError("lr_find=true does not work with finetuning=contrastive: give optimizer.lr=<number>")
        strategy.replace_stages_by_one(strategy.plan[0].trained)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int) -> None:
        """Sets the learning rates of the next step."""
        if self.gathered:
            return
        groups = trainer.optimizers[0].param_groups
        if self.ratios is None:
            (head,) = {group["lr"] for group in groups if group["name"].split("/")[0] == "head"}
            self.ratios = [group["lr"] / head for group in groups]
        learning_rate = self.lowest * (self.highest / self.lowest) ** (len(self.learning_rates) / (self.steps - 1))
        self.learning_rates.append(learning_rate)
        for group, ratio in zip(groups, self.ratios, strict=True):
            group["lr"] = learning_rate * ratio

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Records the loss before the step; ends the test when the loss diverges."""
        # Lightning has divided it by the number of batches per step
        self.gathered.append(outputs["loss"].item() * trainer.accumulate_grad_batches)
        if trainer.global_step == len(self.losses):
            return
        self.losses.append(sum(self.gathered) / len(self.gathered))
        self.gathered = []
        latest = smoothed(self.losses)
        diverged = len(latest) > FIRST_STEPS and not latest[-1] <= DIVERGED * min(latest)
        if len(self.losses) == self.steps or diverged or not math.isfinite(self.losses[-1]):
            trainer.should_stop = True

    def suggestion(self) -> float:
        """The learning rate at two thirds of the longest descent of the smoothed loss.

        fastai's `lr_find` takes the middle; here two thirds, because the descent begins with a flat part.

        Raises:
            UsageError: the loss did not fall.
        """
        first, last = longest_descent(smoothed(self.losses))
        if last - first < 2:
            raise UsageError(
                f"lr_find=true: the loss of {len(self.losses)} batches never fell while the learning rate "
                f"rose from {self.lowest:g} to {self.learning_rates[-1]:g}: give optimizer.lr=<number> instead"
            )
        return self.learning_rates[first + 2 * (last - first) // 3]

    def draw(self, file: Path) -> None:
        """Draws the loss over the learning rate, and the suggestion."""
        from matplotlib.figure import Figure  # imported here, because most runs draw no such curve

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes, latest, chosen = figure.subplots(), smoothed(self.losses), self.suggestion()
        axes.plot(self.learning_rates, self.losses, color="tab:blue", alpha=0.3, label="batch")
        axes.plot(self.learning_rates, latest, color="tab:blue", label="smoothed")
        axes.axvline(chosen, linestyle="--", linewidth=1, color="tab:orange", label=f"chosen: {chosen:.2g}")
        axes.set(xscale="log", xlabel="learning rate of the head", ylabel="training loss", title="range test")
        axes.set_ylim(0, 1.2 * max(latest[: FIRST_STEPS + 1]))  # cuts off the diverging part
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(file, dpi=120)


def smoothed(losses: list[float]) -> list[float]:
    """Exponential moving average, with bias correction for the first values."""
    average, found = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        found.append(average / (1 - SMOOTHING**step))
    return found


def longest_descent(values: list[float]) -> tuple[int, int]:
    """First and last index of the longest decreasing subsequence: the long descent, in spite of small bumps."""
    length, before = [1] * len(values), [None] * len(values)
    for place, value in enumerate(values):
        for earlier in range(place):
            if values[earlier] > value and length[earlier] >= length[place]:
                length[place], before[place] = length[earlier] + 1, earlier
    last = first = max(range(len(values)), key=length.__getitem__)
    while before[first] is not None:
        first = before[first]
    return first, last
