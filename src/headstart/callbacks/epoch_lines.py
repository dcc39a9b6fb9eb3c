"""One line per epoch, in a terminal, a pipe and a notebook alike; it also goes into the log file of the run."""

import logging
import statistics
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Timer

from headstart.callbacks.progress import epoch_in_words
from headstart.cli.terminal import BEST, HEADER
from headstart.finetuning.base import strategy_of
from headstart.metrics.scores import is_better

log = logging.getLogger(__name__)
MOST_COLUMNS = 80
NUMBER, LONGEST_TIME = len("0.1234"), len("1:23:45")


class EpochLines(Callback):
    """Writes losses, scores, learning rate (of the head, if it is trained), elapsed time and time left of each epoch.

    The score is the monitored metric or, if the loss is monitored, the main one of the task. The time left is that of
    all epochs to come if they take as long as the epochs of this stage; validation may end the run earlier.
    """

    def __init__(self) -> None:
        self.stage: int | None = None
        self.seconds: list[float] = []
        self.learning_rate: float | None = None
        self.best: float | None = None
        self.is_validated = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self.began = self.since = time.monotonic()
        self.best = _best_score(trainer, pl_module.monitor)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Notes the learning rate; after the step it is the next one."""
        trained = (group for group in reversed(trainer.optimizers[0].param_groups) if group["params"][0].requires_grad)
        self.learning_rate = next((group["lr"] for group in trained), None)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes that this epoch has validation metrics."""
        self.is_validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the line; not a second time if a run is resumed behind an epoch."""
        # in every process, although only one writes: reading the metrics synchronises them between processes
        metrics = dict(trainer.callback_metrics)
        if "train/loss" not in metrics:
            return
        strategy = strategy_of(trainer)
        if is_new_stage := strategy.progress.stage != self.stage:
            self.stage, self.seconds = strategy.progress.stage, []
        now = time.monotonic()
        self.seconds.append(now - self.since)
        self.since = now
        is_closed_form = strategy.current_stage.closed_form
        score = metrics.get(pl_module.monitor) if self.is_validated else None
        is_best = score is not None and is_better(float(score), self.best, pl_module.monitor)
        cells = {"epoch": epoch_in_words(trainer.current_epoch, trainer.max_epochs).rjust(_width_of_epoch(trainer))}
        cells |= _metrics_cells(metrics, pl_module, self.is_validated)
        cells["lr"] = _short(self.learning_rate)
        cells["time"] = clock(now - self.began)
        cells["left"] = "" if is_closed_form and not trainer.should_stop else clock(self._left(trainer))
        if trainer.is_global_zero:
            header, row = table_lines(cells, is_best)
            if is_new_stage:
                log.info(header, extra={"style": HEADER})
            log.info(row, extra={"style": BEST if is_best else ""})
        if is_best:
            self.best = float(score)
        self.is_validated = False

    def _left(self, trainer: pl.Trainer) -> float | None:
        """Seconds of all epochs to come; None if the length of the run is open."""
        if trainer.should_stop:
            return 0.0
        limits = [timer.time_remaining() for timer in trainer.callbacks if isinstance(timer, Timer)]
        if trainer.max_epochs and trainer.max_epochs > 0:
            usual = statistics.median(self.seconds[1:] or self.seconds)  # the first one may also fill a cache
            limits.append(usual * (trainer.max_epochs - trainer.current_epoch - 1))
        left = min((limit for limit in limits if limit is not None), default=None)
        return None if left is None else max(left, 0.0)  # the epoch in which `trainer.max_time` is over


def _best_score(trainer: pl.Trainer, monitor: str) -> float | None:
    """The score of the best checkpoint so far; None if there is none."""
    scores = [each.best_model_score for each in trainer.checkpoint_callbacks if getattr(each, "monitor", "") == monitor]
    return next((float(score) for score in scores if score is not None), None)


def _metrics_cells(metrics: dict[str, Any], task: pl.LightningModule, is_validated: bool) -> dict[str, str]:
    """Column -> loss or score, as text; without the columns of val if the run never validates."""
    watched, main = task.monitor.partition("/")[2], task.objective.main_score[0]
    cells = {}
    for split in ("train", "val"):
        wanted = main if watched == "loss" or f"{split}/{watched}" not in metrics else watched
        for name in ("loss", wanted):
            if f"{split}/{name}" in metrics:
                value = float(metrics[f"{split}/{name}"]) if split == "train" or is_validated else None
                cells[f"{split} loss" if name == "loss" else f"{split} {name}"] = _number(value)
    return cells


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


def _short(learning_rate: float | None) -> str:
    """Two digits: `9.1e-4`; a dash if nothing is trained."""
    return "-" if learning_rate is None else f"{learning_rate:.1e}".replace("e-0", "e-").replace("e+00", "")


def clock(seconds: float | None) -> str:
    """Minutes and seconds, and hours if there are any: `4:10`, `1:02:42`; empty for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _width_of_epoch(trainer: pl.Trainer) -> int:
    """Room for the number of the last epoch."""
    return 2 * len(str(trainer.max_epochs)) + 1 if trainer.max_epochs and trainer.max_epochs > 0 else 4


def table_lines(cells: dict[str, str], is_best: bool) -> tuple[str, str]:
    """The header and the line of an epoch, in columns.

    Args:
        cells: column -> text, in their order.
        is_best: whether the line is marked.
    """
    wide = {"time": LONGEST_TIME, "left": LONGEST_TIME}
    widths = [max(len(name), len(text), wide.get(name, NUMBER)) for name, text in cells.items()]
    gap = "  " if sum(widths) + 2 * len(widths) + len("best") <= MOST_COLUMNS else " "
    header = gap.join(name.rjust(width) for name, width in zip(cells, widths, strict=True))
    row = gap.join(text.rjust(width) for text, width in zip(cells.values(), widths, strict=True))
    return header, row + (f"{gap}best" if is_best else "")
