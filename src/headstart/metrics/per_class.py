"""How each class fares, and which are taken for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.files import write_table
from headstart.metrics.predictions import Predictions

COLUMNS = ("class", "support", "found", "missed", "seen where it is not", "precision", "recall", "f1")
PAIRS = 20


def class_rows(predictions: Predictions) -> list[dict[str, Any]]:
    """One row (as `COLUMNS`) a class; a share without any sample to count is None."""
    truth, answer = predictions.truth, predictions.answer
    found, missed, wrong = (
        (a & b).sum(dim=0).tolist() for a, b in ((truth, answer), (truth, ~answer), (~truth, answer))
    )
    rows = []
    for name, tp, fn, fp in zip(predictions.classes, found, missed, wrong, strict=True):
        shares = _share(tp, tp + fp), _share(tp, tp + fn), _share(2 * tp, 2 * tp + fp + fn)
        rows.append(dict(zip(COLUMNS, (name, tp + fn, tp, fn, fp, *shares), strict=True)))
    return rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def write_classes(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the rows as CSV; what is None stays empty."""
    shown = [[f"{value:.4f}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    write_table(file, [COLUMNS, *shown])


def confusion_matrix(predictions: Predictions) -> Tensor:
    """`(classes, classes)`: samples of the class of a row that were taken for the class of a column."""
    number = len(predictions.classes)
    cells = predictions.targets * number + predictions.predicted
    return torch.bincount(cells, minlength=number**2).view(number, number)


def write_confusion(file: Path, matrix: Tensor, classes: list[str]) -> None:
    """Writes the matrix as CSV, names in the first row and column; rows are the truth."""
    rows = ([name, *row] for name, row in zip(classes, matrix.tolist(), strict=True))
    write_table(file, [["true \\ predicted", *classes], *rows])


def confused_pairs(matrix: Tensor, classes: list[str]) -> list[dict[str, Any]]:
    """The most frequent mistakes: true class, predicted class, samples, their share of the true class."""
    wrong = matrix.clone().fill_diagonal_(0)
    number = min(PAIRS, int((wrong > 0).sum()))
    samples, places = wrong.flatten().sort(descending=True, stable=True)
    support = matrix.sum(dim=1)
    return [
        {
            "true": classes[place // len(classes)],
            "predicted": classes[place % len(classes)],
            "samples": count,
            "share": count / support[place // len(classes)].item(),
        }
        for count, place in zip(samples[:number].tolist(), places[:number].tolist(), strict=True)
    ]
