"""What a person sees in the terminal before and after training."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.backbones.base import LayerGroup


class LearningTable(Callback):
    """Prints at the start of training which layer groups learn, how many parameters they have and at which rate."""

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the table."""
        Console(stderr=True).print(learning_table(pl_module))


def learning_table(task: pl.LightningModule) -> Table:
    """One row a layer group from the stem to the head, and a row of totals."""
    table = Table(
        title=f"{type(task.backbone).__name__} + {type(task.head).__name__}: what learns", title_justify="left"
    )
    table.add_column("group")
    for column in ("parameters", "learning", "rate", "BatchNorm"):
        table.add_column(column, justify="right")
    last = task.optimizers().param_groups[-1]
    base = last.get("max_lr", last.get("initial_lr", last["lr"]))  # the peak, whatever the schedule starts with
    head = LayerGroup("head", dict(task.head.named_modules()))
    totals = [0, 0]
    for group in [*task.layer_groups, head]:
        parameters = list(group.parameters())
        count = sum(p.numel() for p in parameters)
        learning = sum(p.numel() for p in parameters if p.requires_grad)
        totals = [totals[0] + count, totals[1] + learning]
        rate = f"{base * task.lr_ratios.get(group.name, 1.0):.2g}" if learning else "frozen"
        table.add_row(group.name, f"{count:,}", f"{learning:,}", rate, _norm_mode(group.modules.values()))
    table.add_section()
    table.add_row("all", f"{totals[0]:,}", f"{totals[1]:,}", "", "")
    return table


def _norm_mode(modules: "list[nn.Module]") -> str:
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    if not norms:
        return ""
    if not any(norm.training for norm in norms):
        return "frozen"
    affine = any(p.requires_grad for norm in norms for p in norm.parameters())
    return "train" if affine else "adapt_stats"


def data_table(classes: list[str], counts: dict[str, list[int]], limit: int = 20) -> Table:
    """Samples of each class in each split; of many classes the first `limit`."""
    table = Table(title="samples", title_justify="left")
    table.add_column("class")
    for split in counts:
        table.add_column(split, justify="right")
    for place, name in enumerate(classes[:limit]):
        table.add_row(name, *(f"{row[place]:,}" for row in counts.values()))
    if len(classes) > limit:
        table.add_row(f"... {len(classes) - limit} more", *("" for _ in counts))
    table.add_section()
    table.add_row("all", *(f"{sum(row):,}" for row in counts.values()))
    return table
