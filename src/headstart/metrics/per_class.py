"""Metrics of each class, and the confusion matrix."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.files import write_table
from headstart.metrics.predictions import Predictions
from headstart.metrics.thresholds import USUAL

COUNT_COLUMNS = ("found", "missed", "seen where it is not")
"""True positives, false negatives and false positives."""
CLASS_COLUMNS = ("class", "support", *COUNT_COLUMNS, "precision", "recall", "f1")
MAX_CONFUSED_PAIRS = 20
MOST_CLASSES_IN_MATRIX = 1000
"""With more classes no confusion matrix is written: it is too large for a person to read, and it fills the memory."""


def class_rows(predictions: Predictions) -> list[dict[str, Any]]:
    """One row per class, with the keys `CLASS_COLUMNS`. An undefined score, such as 0 of 0 samples, is None.

    With several labels per sample there are also `average_precision` and `threshold`.
    """
    # imported here, because scikit-learn takes a second to load, and most commands need no such rows
    from sklearn.metrics import average_precision_score, multilabel_confusion_matrix, precision_recall_fscore_support

    if predictions.multi_label:
        answers = predictions.truth.numpy(), predictions.answer.numpy()
    else:
        answers = predictions.targets.numpy(), predictions.predicted.numpy()
    labels = range(len(predictions.classes))
    counts = multilabel_confusion_matrix(*answers, labels=labels)
    found, missed, wrong = counts[:, 1, 1], counts[:, 1, 0], counts[:, 0, 1]
    *scores, support = precision_recall_fscore_support(*answers, labels=labels, zero_division=np.nan)
    columns = (column.tolist() for column in (support, found, missed, wrong, *scores))
    rows = zip(predictions.classes, *columns, strict=True)
    defined = ([None if value != value else value for value in row] for row in rows)
    found = [dict(zip(CLASS_COLUMNS, row, strict=True)) for row in defined]
    if predictions.multi_label:
        for c, row in enumerate(found):
            truth, scores = predictions.truth[:, c].numpy(), predictions.probabilities[:, c].numpy()
            row["average_precision"] = float(average_precision_score(truth, scores)) if truth.any() else None
            row["threshold"] = predictions.thresholds[c] if predictions.thresholds else USUAL
    return found


def write_classes(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the rows of `class_rows` as CSV; None is an empty cell."""
    shown = [[f"{value:.4f}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    write_table(file, [list(rows[0]), *shown])


def confusion_matrix(predictions: Predictions) -> Tensor:
    """`(classes, classes)`: numbers of samples; a row for each true class, a column for each predicted one."""
    number = len(predictions.classes)
    cells = predictions.targets * number + predictions.predicted
    return torch.bincount(cells, minlength=number**2).view(number, number)


def write_confusion(file: Path, matrix: Tensor, classes: list[str]) -> None:
    """Writes the matrix as CSV with class names in the first row and column. Rows are true classes."""
    rows = ([name, *row] for name, row in zip(classes, matrix.tolist(), strict=True))
    write_table(file, [["true \\ predicted", *classes], *rows])


def confused_pairs(predictions: Predictions) -> list[dict[str, Any]]:
    """The most frequent mistakes: true class, predicted class, samples, and their share of the true class."""
    classes, targets = predictions.classes, predictions.targets
    wrong = ~predictions.is_right
    places, samples = (targets[wrong] * len(classes) + predictions.predicted[wrong]).unique(return_counts=True)
    samples, order = samples.sort(descending=True, stable=True)
    support = torch.bincount(targets, minlength=len(classes))
    most_frequent = zip(samples.tolist(), places[order].tolist(), strict=True)
    return [
        {
            "true": classes[place // len(classes)],
            "predicted": classes[place % len(classes)],
            "samples": count,
            "share": count / support[place // len(classes)].item(),
        }
        for count, place in islice(most_frequent, MAX_CONFUSED_PAIRS)
    ]
