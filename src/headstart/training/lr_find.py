"""Finds a learning rate before training: it rises from step to step, and the loss tells where it is best.

Not Lightning's `LearningRateFinder`: that one changes one rate alone (here each layer group has its own), leaves its
traces in the model and the trainer, and knows nothing of stages and caches.
"""

import logging
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng

from headstart.data.module import DataModule
from headstart.errors import UsageError
from headstart.finetuning.base import strategy_of
from headstart.finetuning.stages import Stage
from headstart.training.build import build_task, build_trainer

log = logging.getLogger(__name__)
SMOOTHING = 0.9  # share of the earlier losses in the smoothed one
DIVERGED = 4  # times the best smoothed loss: going on would tell nothing more
FIRST_STEPS = 10  # in which the smoothed loss is still too rough to stop by


def find_learning_rate(cfg: DictConfig, data: DataModule) -> float:
    """The learning rate that a range test suggests; the test leaves nothing else but a picture of it.

    It is a training of its own, on a task of its own, so that strategy and caches work as they do in the run.
    """
    rehearsal = cfg.copy()
    rehearsal.update({"scheduler": None, "callbacks": {}, "logger": {}})
    rehearsal.trainer.update({"max_epochs": -1, "max_time": None, "limit_val_batches": 1})
    rehearsal.trainer.enable_progress_bar = False
    for key, value in {"enable_checkpointing": False, "max_steps": -1}.items():
        OmegaConf.update(rehearsal, f"trainer.{key}", value, force_add=True)
    started = time.monotonic()
    with isolate_rng():
        trainer, test = build_trainer(rehearsal), RangeTest()
        trainer.callbacks.append(test)
        trainer.fit(build_task(rehearsal, data), data)
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

    The head's rate rises exponentially from `lowest` to `highest`, the other layer groups' in proportion. For a trainer
    of its own, without scheduler and loggers, on a task that is thrown away: the weights end up broken. It stays in the
    strategy's first stage. To be placed behind the strategy.

    Args:
        steps: optimizer steps at most; the loss's blowing up ends it earlier.
        lowest: rate of the first one.
        highest: rate of the last one.

    Attributes:
        rates: of the head, one a step.
        losses: the mean of the step's training batches (`trainer.accumulate_grad_batches`), one a step.
    """

    def __init__(self, steps: int = 100, lowest: float = 1e-6, highest: float = 10.0):
        self.steps, self.lowest, self.highest = steps, lowest, highest
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.ratios: list[float] | None = None
        self.gathered: list[float] = []  # losses of batches since the last step

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lets the first stage go on for ever.

        Raises:
            UsageError: the head is computed in it.
        """
        strategy = strategy_of(trainer)
        if strategy.plan[0].solved:
            raise UsageError(
                "lr_find=true: the training loss of a computed head is as low as it can be before the first step, so "
                "that no rate makes it fall. Give optimizer.lr=<rate>, or let the head learn with "
                "finetuning=feature_extraction (of lp_ft: finetuning.solve_head=false)"
            )
        strategy.plan = [Stage(strategy.plan[0].learning)]
        strategy.patience = strategy.goal = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int) -> None:
        """Sets the rates of the step that follows."""
        if self.gathered:
            return
        groups = trainer.optimizers[0].param_groups
        if self.ratios is None:
            (head,) = {group["lr"] for group in groups if group["name"].split("/")[0] == "head"}
            self.ratios = [group["lr"] / head for group in groups]
        rate = self.lowest * (self.highest / self.lowest) ** (len(self.rates) / (self.steps - 1))
        self.rates.append(rate)
        for group, ratio in zip(groups, self.ratios, strict=True):
            group["lr"] = rate * ratio

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Notes the loss before the step, and ends the test when it has blown up."""
        # Lightning has divided it by how many batches make a step
        self.gathered.append(outputs["loss"].item() * trainer.accumulate_grad_batches)
        if trainer.global_step == len(self.losses):
            return
        self.losses.append(sum(self.gathered) / len(self.gathered))
        self.gathered = []
        latest = smoothed(self.losses)
        blown_up = len(latest) > FIRST_STEPS and not latest[-1] <= DIVERGED * min(latest)
        if len(self.losses) == self.steps or blown_up or not math.isfinite(self.losses[-1]):
            trainer.should_stop = True

    def suggestion(self) -> float:
        """The rate at two thirds of the longest valley of the smoothed loss.

        fastai's `lr_find` takes the middle of its valley; two thirds make up for the flat part in which ours begins.

        Raises:
            UsageError: the loss never fell.
        """
        first, last = longest_valley(smoothed(self.losses))
        if last - first < 2:
            raise UsageError(
                f"lr_find=true: the loss of {len(self.losses)} batches never fell while the rate rose from "
                f"{self.lowest:g} to {self.rates[-1]:g}: give optimizer.lr=<rate> instead"
            )
        return self.rates[first + 2 * (last - first) // 3]

    def draw(self, file: Path) -> None:
        """Loss against rate, with the suggestion."""
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes, latest, chosen = figure.subplots(), smoothed(self.losses), self.suggestion()
        axes.plot(self.rates, self.losses, color="tab:blue", alpha=0.3, label="batch")
        axes.plot(self.rates, latest, color="tab:blue", label="smoothed")
        axes.axvline(chosen, linestyle="--", linewidth=1, color="tab:orange", label=f"chosen: {chosen:.2g}")
        axes.set(xscale="log", xlabel="learning rate of the head", ylabel="training loss", title="range test")
        axes.set_ylim(0, 1.2 * max(latest[: FIRST_STEPS + 1]))  # where it blows up is of no interest
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(file, dpi=120)


def smoothed(losses: list[float]) -> list[float]:
    """Exponential moving average, the first values corrected for their short past."""
    average, found = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        found.append(average / (1 - SMOOTHING**step))
    return found


def longest_valley(values: list[float]) -> tuple[int, int]:
    """First and last place of the longest falling subsequence: the long way down, whatever small bumps are in it."""
    length, before = [1] * len(values), [None] * len(values)
    for place, value in enumerate(values):
        for earlier in range(place):
            if values[earlier] > value and length[earlier] >= length[place]:
                length[place], before[place] = length[earlier] + 1, earlier
    last = first = max(range(len(values)), key=length.__getitem__)
    while before[first] is not None:
        first = before[first]
    return first, last
