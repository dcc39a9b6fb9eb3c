"""Shows for each stage which layer groups are trained, and their learning rates."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from rich.table import Table
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.backbones.base import LayerGroup
from headstart.cli.terminal import show
from headstart.finetuning.base import frozen_prefix, strategy_of


class LearningTable(Callback):
    """Prints a table at the start of every stage: the layer groups, their parameters and learning rates.

    TensorBoard gets the same table as text, and every logger gets the number of the stage (from 1) as `stage`; not
    again if a run is resumed inside a stage.
    """

    def __init__(self) -> None:
        self.shown: int | None = None
        self.logged: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows the first stage, or the stage of a resumed run."""
        self._show(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows a stage that has just begun."""
        self._show(trainer, pl_module)

    @rank_zero_only
    def _show(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        strategy = strategy_of(trainer)
        stage = strategy.progress.stage
        if stage == self.shown:
            return
        self.shown = stage
        count = f", stage {stage + 1} of {len(strategy.plan)}" if len(strategy.plan) > 1 else ""
        title = f"trained layers{count}"
        rows = learning_rows(task)
        show(learning_table(title, rows))
        if stage == self.logged:
            return
        self.logged = stage
        for logger in trainer.loggers:
            logger.log_metrics({"stage": stage + 1, "epoch": trainer.current_epoch}, step=trainer.global_step)
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("stages", as_markdown(title, rows), trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The last stage that was logged."""
        return {"logged": self.logged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state."""
        self.logged = state_dict["logged"]


COLUMNS = ("group", "parameters", "trained", "learning rate", "BatchNorm")


def learning_rows(task: pl.LightningModule) -> list[tuple[str, ...]]:
    """Rows as in `COLUMNS`: one per layer group from stem to head, one with totals, one for the frozen prefix."""
    last = task.optimizers().param_groups[-1]
    base = last.get("max_lr", last.get("initial_lr", last["lr"]))  # the peak of the schedule
    head = LayerGroup("head", dict(task.head.named_modules()))
    rows, total, total_trained = [], 0, 0
    for group in [*task.layer_groups, head]:
        count = sum(p.numel() for p in group.parameters())
        trained = sum(p.numel() for p in group.parameters() if p.requires_grad)
        total, total_trained = total + count, total_trained + trained
        rate = f"{base * task.lr_ratios.get(group.name, 1.0):.2g}" if trained else "frozen"
        if group is head and not trained:
            rate = "closed form"
        rows.append((group.name, f"{count:,}", f"{trained:,}", rate, _norm_mode(group.modules.values())))
    rows.append(("all", f"{total:,}", f"{total_trained:,}", "", ""))
    prefix = task.layer_groups[: frozen_prefix(task.layer_groups)]
    frozen = sum(p.numel() for group in prefix for p in group.parameters())
    rows.append((f"frozen prefix: {len(prefix)} of {len(task.layer_groups)}", f"{frozen:,}", "0", "", ""))
    return rows


def learning_table(title: str, rows: list[tuple[str, ...]]) -> Table:
    """The rows as a table for a terminal."""
    table = Table(title=title)
    columns, rows = _used(rows)
    for column in columns:
        table.add_column(column, justify="left" if column == "group" else "right")
    for row in rows[:-2]:
        table.add_row(*row)
    table.add_section()
    for row in rows[-2:]:
        table.add_row(*row)
    return table


def as_markdown(title: str, rows: list[tuple[str, ...]]) -> str:
    """The rows as a table for TensorBoard's text tab."""
    columns, rows = _used(rows)
    lines = [columns, ("---",) * len(columns), *rows]
    return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _used(rows: list[tuple[str, ...]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows; without the last column if the network has no BatchNorm."""
    number = len(COLUMNS) if any(row[-1] for row in rows) else len(COLUMNS) - 1
    return COLUMNS[:number], [row[:number] for row in rows]


def _norm_mode(modules: "list[nn.Module]") -> str:
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    if not norms:
        return ""
    moving = any(norm.training for norm in norms)
    affine = any(p.requires_grad for norm in norms for p in norm.parameters())
    return ("train" if affine else "adapt_stats") if moving else ("affine" if affine else "frozen")
