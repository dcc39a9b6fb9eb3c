"""Figures of predicted numbers: predicted against true values, and residuals."""

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headstart.display.figures import FIRST_COLOUR, MUTED_COLOUR, shortened
from headstart.metrics.number_predictions import NumberPredictions

MOST_PANELS = 12
"""With more numbers, only the first ones are drawn."""
MOST_POINTS = 5000
"""More samples are drawn at even distances."""


def predicted_against_true(predictions: NumberPredictions) -> Figure:
    """One panel per number: a point per sample, and the line on which predictions are right."""

    def draw(axes: Axes, true: np.ndarray, predicted: np.ndarray, name: str) -> None:
        low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
        axes.plot([low, high], [low, high], linestyle="--", linewidth=1, color=MUTED_COLOUR)
        _points(axes, true, predicted)
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")

    return _panels(predictions, draw, "predicted against true")


def residuals(predictions: NumberPredictions) -> Figure:
    """One panel per number: predicted minus true over the predicted value."""

    def draw(axes: Axes, true: np.ndarray, predicted: np.ndarray, name: str) -> None:
        axes.axhline(0, linestyle="--", linewidth=1, color=MUTED_COLOUR)
        _points(axes, predicted, predicted - true)
        axes.set(xlabel=f"predicted {name}", ylabel="predicted minus true")

    return _panels(predictions, draw, "residuals")


def _panels(
    predictions: NumberPredictions, draw: Callable[[Axes, np.ndarray, np.ndarray, str], None], title: str
) -> Figure:
    names = predictions.classes[:MOST_PANELS]
    columns = min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.6 * columns, 4.2 * rows + 0.3), layout="constrained")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if place >= len(names):
            axes.set_axis_off()
            continue
        values = (each[:, place].numpy() for each in (predictions.targets, predictions.values))
        draw(axes, *values, shortened(names[place]))
        axes.grid(alpha=0.3)
    more = len(predictions.classes) - len(names)
    figure.suptitle(f"{title}, the first {len(names)} numbers of {len(names) + more}" if more else title)
    return figure


def _points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    chosen = slice(None, None, -(-len(x) // MOST_POINTS))
    alpha = 0.7 if len(x) <= 500 else 0.3
    axes.plot(x[chosen], y[chosen], "o", color=FIRST_COLOUR, alpha=alpha, markersize=4, markeredgewidth=0)
