"""Training curves: accuracy or R2, and loss, over the epochs."""

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PANEL_METRICS = {"accuracy": "acc", "R2": "r2", "loss": "loss"}
SPLIT_COLOURS = {"train": "tab:blue", "val": "tab:orange"}


@dataclass
class History:
    """The points of the training curves of a run. The end of the first epoch is 1.0.

    Args:
        points: metric such as `val/acc` -> `(epochs, value)`, in order of time.
        stages: number of a stage (from 1) -> number of epochs before it began.
    """

    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    stages: dict[int, int] = field(default_factory=dict)


def read(file: Path) -> History:
    """Reads accuracy or R2, loss and the start of each stage from a `metrics.csv`."""
    with file.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("epoch")]
    history = History()
    for metric in [f"{split}/{name}" for name in PANEL_METRICS.values() for split in SPLIT_COLOURS]:
        of_epoch: dict[int, list[float]] = defaultdict(list)
        for row in rows:
            if row.get(metric):
                of_epoch[int(row["epoch"])].append(float(row[metric]))
        points = [
            # several validations in one epoch are spread evenly over it
            (epoch + place / len(values), value)
            for epoch, values in sorted(of_epoch.items())
            for place, value in enumerate(values, start=1)
        ]
        if points:
            history.points[metric] = points
    history.stages = {int(float(row["stage"])): int(row["epoch"]) for row in rows if row.get("stage")}
    return history


def panels_of(history: History) -> dict[str, str]:
    """Title -> metric of the panels that have points."""
    known = {metric.partition("/")[2] for metric in history.points}
    return {title: name for title, name in PANEL_METRICS.items() if name in known}


def draw(history: History) -> Figure:
    """A figure of accuracy (of numbers R2) and loss side by side. A dashed line marks the start of a stage."""
    shown = panels_of(history)
    figure = Figure(figsize=(5 * len(shown), 4), layout="constrained")
    for axes, (title, name) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        panel(axes, history, title, name)
    return figure


def panel(axes: Axes, history: History, title: str, name: str) -> None:
    """Draws one metric of training and validation."""
    for split, colour in SPLIT_COLOURS.items():
        if points := history.points.get(f"{split}/{name}"):
            axes.plot(*zip(*points, strict=True), marker=".", color=colour, label=split)
    if len(history.stages) > 1:
        for begins in history.stages.values():
            axes.axvline(begins, linestyle="--", linewidth=1, color="grey")
        top = axes.secondary_xaxis("top")
        top.set_xticks(list(history.stages.values()), list(history.stages))
        top.set_xlabel("stage")
    axes.set(title=title, xlabel="epochs")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
