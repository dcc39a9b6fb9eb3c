"""Figures of an evaluation: confusion matrix, calibration, ROC and precision-recall curves."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from headstart.display.fonts import choose_fonts
from headstart.files import replacing
from headstart.metrics.predictions import Predictions

DPI = 120
FIRST_COLOUR, SECOND_COLOUR, MUTED_COLOUR = "tab:blue", "tab:orange", "grey"
MAX_CLASSES_WITH_NUMBERS = 20
"""With more classes the cells of a confusion matrix show colours, but no numbers."""
MAX_CLASSES_WITH_NAMES = 120
"""With more classes the axes show class numbers instead of names."""
MAX_CLASSES_WITH_OWN_COLOUR = 10
"""With more classes all curves are grey, except those with the smallest areas."""
BAR_WIDTH = 0.04
"""Of the number of samples in a bin, in units of the probability."""
MAX_CURVES = 200
"""With more classes some are left out, at even distances."""
NUM_WORST_CURVES = 5
"""Curves with the smallest areas, which have a colour when the others are grey."""


def confusion(matrix: Tensor, classes: list[str]) -> Figure:
    """Draws the confusion matrix `(classes, classes)`. Rows are true classes; colours show shares of a row."""
    counts, number = matrix.numpy(), len(classes)
    side = _side(number)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # with many classes each kind of mistake is a small share, which must still be visible
    scale = PowerNorm(1 if number <= MAX_CLASSES_WITH_NUMBERS else 0.4, vmin=0, vmax=1)
    picture = axes.imshow(shares, cmap="Blues", norm=scale, interpolation="nearest")
    if number <= MAX_CLASSES_WITH_NUMBERS:
        for row, column in np.ndindex(number, number):
            colour = "white" if shares[row, column] > 0.5 else "black"
            shown = f"{counts[row, column]:,}" if counts[row, column] else ""
            axes.text(column, row, shown, ha="center", va="center", color=colour, fontsize=9)
    _name_both_axes(axes, classes, size=9 if number <= MAX_CLASSES_WITH_NUMBERS else 5.5)
    size = max(10.0, 0.8 * side)
    axes.set_xlabel("predicted", fontsize=size)
    axes.set_ylabel("true", fontsize=size)
    axes.set_title("confusion matrix", fontsize=1.2 * size)
    figure.colorbar(picture, ax=axes, shrink=0.8, aspect=30).set_label("share of the true class", fontsize=size)
    return figure


def _side(number: int) -> float:
    """Side of a confusion matrix in inches, with room for numbers or for names."""
    if number <= MAX_CLASSES_WITH_NUMBERS:
        return max(2.5 + 0.45 * number, 4.5)
    return max(0.15 * number + 4, 9) if number <= MAX_CLASSES_WITH_NAMES else 14


def _name_both_axes(axes: Axes, classes: list[str], size: float) -> None:
    if len(classes) > MAX_CLASSES_WITH_NAMES:
        return  # matplotlib shows some of the class numbers
    shown = [shortened(name) for name in classes]
    upright = len(classes) > 6 or max(map(len, shown)) > 8
    axes.set_xticks(range(len(classes)), shown, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(range(len(classes)), shown, fontsize=size)


def label_confusion(counts: dict[str, Sequence[int]], classes: list[str]) -> Figure:
    """Draws how often each label was found, missed, and predicted where it is not; for several labels per sample."""
    figure = Figure(figsize=(8, float(np.clip(0.3 * len(classes) + 1.8, 3, 24))), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(classes))
    colours = {"found": FIRST_COLOUR, "missed": SECOND_COLOUR, "seen where it is not": MUTED_COLOUR}
    for name, colour in colours.items():
        axes.barh(range(len(classes)), counts[name], left=left, color=colour, label=name)
        left += np.asarray(counts[name])
    if len(classes) <= MAX_CLASSES_WITH_NAMES:
        axes.set_yticks(range(len(classes)), [shortened(name) for name in classes])
    axes.invert_yaxis()
    axes.set(xlabel="samples", title="labels")
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def reliability(bins: dict[str, list[tuple[float, float, int]]], errors: dict[str, float], axis: str) -> Figure:
    """Draws the share of correct predictions over their probability, and the number of samples below.

    Args:
        bins: name of a line, such as `before` or `after` -> probability, share of correct predictions and samples of
            each bin. The share of a bin with a single sample is 0 or 1, which says nothing: it is not drawn.
        errors: name of a line -> expected calibration error.
        axis: label of the vertical axis.
    """
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color=MUTED_COLOUR, label="perfectly calibrated")
    for (name, points), colour in zip(bins.items(), (FIRST_COLOUR, SECOND_COLOUR), strict=False):
        label = f"{name}, ECE {errors[name]:.3f}".removeprefix(", ")
        drawn = np.array([point[:2] for point in points if point[2] > 1]).reshape(-1, 2)
        above.plot(*drawn.T, marker="o", color=colour, label=label)
        below.bar([p for p, _, _ in points], [n for _, _, n in points], BAR_WIDTH, color=colour, alpha=0.7)
    above.set(ylabel=axis, title="calibration", xlim=(0, 1.03), ylim=(0, 1.02))
    below.set(xlabel="probability", ylabel="samples")
    below.set_ylim(bottom=0)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


def roc(predictions: Predictions) -> Figure:
    """ROC curves: one for two classes; with more, one of each class against the rest, and their mean."""

    from sklearn.metrics import auc, roc_curve  # imported here, because few commands draw curves, and it takes a second

    def curve(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        false_rate, true_rate, _ = roc_curve(truth, scores)
        return false_rate, true_rate, auc(false_rate, true_rate)

    figure = _class_curves(predictions, curve, "AUC", "ROC")
    axes = figure.axes[0]
    axes.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color=MUTED_COLOUR)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    _legend_below(figure)
    return figure


def precision_recall(predictions: Predictions) -> Figure:
    """Precision-recall curves of the same classes as in `roc`."""

    from sklearn.metrics import average_precision_score, precision_recall_curve  # for the same reason as in `roc`

    def curve(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        precision, recall, _ = precision_recall_curve(truth, scores)
        return recall[::-1], precision[::-1], average_precision_score(truth, scores)

    figure = _class_curves(predictions, curve, "AP", "precision and recall")
    axes = figure.axes[0]
    axes.set(xlabel="recall", ylabel="precision")
    _legend_below(figure)
    return figure


def _legend_below(figure: Figure) -> None:
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)


Curve = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, float]]


def _class_curves(predictions: Predictions, curve: Curve, area: str, title: str) -> Figure:
    """Draws the curves of all classes with both positives and negatives; without such a class, a note that says so."""
    found = {c: curve(*_class_truth_and_scores(predictions, c)) for c in _drawn_classes(predictions)}
    figure = Figure(figsize=(6, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.grid(alpha=0.3)
    if not found:
        axes.text(0.5, 0.5, "a curve needs samples of two classes", ha="center")
        return figure
    worst = sorted(found, key=lambda c: found[c][2])[:NUM_WORST_CURVES]
    for rank, (c, (x, y, value)) in enumerate(found.items()):
        name = f"{shortened(predictions.classes[c])}, {area} {value:.3f}"
        if len(found) <= MAX_CLASSES_WITH_OWN_COLOUR:
            axes.plot(x, y, color=colormaps["tab10"](rank), label=name)
        else:
            axes.plot(x, y, color=MUTED_COLOUR, linewidth=0.5, alpha=0.3)
    if len(found) > MAX_CLASSES_WITH_OWN_COLOUR:
        for rank, c in enumerate(worst, start=1):
            name = f"{shortened(predictions.classes[c])}, {area} {found[c][2]:.3f}"
            axes.plot(*found[c][:2], color=colormaps["tab10"](rank), linewidth=1, label=name)
    if len(found) > 1:
        grid = np.linspace(0, 1, 201)
        mean = np.mean([np.interp(grid, x, y) for x, y, _ in found.values()], axis=0)
        label = f"mean of {len(found)} classes, {area} {np.mean([value for *_, value in found.values()]):.3f}"
        axes.plot(grid, mean, color="black", linewidth=2, label=label)
    return figure


def _drawn_classes(predictions: Predictions) -> list[int]:
    """Indices of the classes with a curve. Of two classes the second, because the curve of the first is its mirror."""
    if predictions.multi_label:
        number = predictions.truth.sum(dim=0)
    else:
        number = torch.bincount(predictions.targets, minlength=len(predictions.classes))
    both = ((number > 0) & (number < len(predictions))).nonzero()[:, 0].tolist()
    if not predictions.multi_label and len(predictions.classes) == 2:
        return both[1:]
    return both[:: -(-len(both) // MAX_CURVES)] if both else []


def _class_truth_and_scores(predictions: Predictions, c: int) -> tuple[np.ndarray, np.ndarray]:
    truth = predictions.truth[:, c] if predictions.multi_label else predictions.targets == c
    return truth.numpy(), predictions.probabilities[:, c].numpy()


def save(file: Path, figure: Figure) -> None:
    """Writes a figure; complete or not at all."""
    choose_fonts(figure)
    with replacing(file, binary=True) as stream:
        figure.savefig(stream, format="png", dpi=DPI)


def shortened(name: str, length: int = 24) -> str:
    """A class name in one line of at most `length` characters, which matplotlib shows unchanged."""
    name = " ".join(name.encode(errors="replace").decode().split())  # the name of a folder may be invalid Unicode
    short = textwrap.shorten(name, length, placeholder="...")
    if len(name) > length and short == "...":  # the first word alone is too long
        short = name[: length - 3] + "..."
    if short.startswith("_"):  # matplotlib leaves such names out of legends
        short = f" {short}"
    return short.replace("$", r"\$")  # text between two dollar signs would become a formula
