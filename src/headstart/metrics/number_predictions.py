"""Predicted numbers for each sample of a split: their errors, tables and intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from headstart.files import Column, with_column, write_table
from headstart.metrics.intervals import Statistic, bootstrap_intervals, mean_loss

DIGITS = 7
"""Significant digits of a number in tables."""
SCORES = ("r2", "mae", "rmse")
ROW_COLUMNS = ("number", "mean", "std", *(f"{name}{end}" for name in SCORES for end in ("", "_low", "_high")))


@dataclass
class NumberPredictions:
    """The predictions for a split, in the order of its samples.

    Attributes:
        paths: path of each sample relative to the root of the data, or its name if samples are not files.
        classes: names of the numbers.
        targets: the true numbers `(samples, numbers)`.
        values: the predicted numbers `(samples, numbers)`, in the same units.
        scale: standard deviation of each number in training `(numbers,)`; errors of different numbers are compared in
            these units.
    """

    paths: Sequence[str]
    classes: list[str]
    targets: Tensor
    values: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def errors(self) -> Tensor:
        """Absolute errors `(samples, numbers)`."""
        return (self.values - self.targets).abs()

    def true_and_predicted_names(self, position: int) -> tuple[str, str]:
        """The numbers of one sample in words; several are joined as in the split file of a run."""
        rows = self.targets[position].tolist(), self.values[position].tolist()
        true, predicted = ("|".join(map(shown, row)) for row in rows)
        return true, predicted

    def explained_name(self, output: int) -> str:
        """The name of the number that an explanation of this output is about."""
        return self.classes[min(output, len(self.classes) - 1)]


@dataclass(frozen=True)
class NumberError:
    """One predicted number.

    Attributes:
        position: of the sample in its split.
        path: of the sample.
        name: of the number; with several numbers per sample, of the one with the largest error.
        true, predicted: the number in words.
        size: absolute error, in the units of the number.
        shown_class: the output for explanations; 1 if there is only one, because 0 stands for its negative.
    """

    position: int
    path: str
    name: str
    true: str
    predicted: str
    size: float
    shown_class: int

    measure: ClassVar[str] = "error"
    """The word for `measured`, in a table."""

    @property
    def measured(self) -> str:
        """How bad it is: the error, short."""
        return f"{self.size:.4g}"

    @property
    def lines(self) -> tuple[str, ...]:
        """A few words about it, as a caption."""
        return f"{self.name}: {self.true}", f"predicted: {self.predicted}", f"error {shown(self.size)}"


def shown(number: float) -> str:
    """A number in words."""
    return f"{number:.{DIGITS}g}"


def worst_errors(predictions: NumberPredictions) -> list[NumberError]:
    """One error per sample, the largest first, measured in standard deviations of the numbers in training."""
    largest, numbers = (predictions.errors / predictions.scale).max(dim=1)
    found = []
    for position in largest.argsort(descending=True, stable=True).tolist():
        number = int(numbers[position])
        true, predicted = (shown(each[position, number].item()) for each in (predictions.targets, predictions.values))
        size, output = predictions.errors[position, number].item(), number if len(predictions.classes) > 1 else 1
        name = predictions.classes[number]
        found.append(NumberError(position, predictions.paths[position], name, true, predicted, size, output))
    return found


def write_errors(file: Path, errors: list[NumberError], contents: Column | None = None) -> None:
    """Writes the columns `path,number,true,predicted,error`, the largest error first.

    Args:
        file: a CSV file.
        errors: the rows.
        contents: the sample of each error, for one more column.
    """
    rows = [[e.path, e.name, e.true, e.predicted, shown(e.size)] for e in errors]
    write_table(file, with_column([["path", "number", "true", "predicted", "error"], *rows], contents))


def write_numbers(file: Path, predictions: NumberPredictions) -> None:
    """Writes `path` and, for each number, `true(<name>)` and `predicted(<name>)`, one row per sample."""
    header = [f"{kind}({name})" for name in predictions.classes for kind in ("true", "predicted")]
    pairs = torch.stack([predictions.targets, predictions.values], dim=2).flatten(1).tolist()
    rows = ([path, *map(shown, row)] for path, row in zip(predictions.paths, pairs, strict=True))
    write_table(file, [["path", *header], *rows])


def number_statistics(predictions: NumberPredictions, losses: Tensor, weights: Tensor) -> dict[str, Statistic]:
    """The metrics of evaluation (`tasks/numbers.py`) as functions of the counts of the samples.

    Args:
        predictions: of the split.
        losses: `(samples,)`.
        weights: of the losses in their mean, `(samples,)`.
    """
    return {
        "loss": mean_loss(losses, weights),
        "r2": lambda n: _r2(predictions, n).nanmean(dim=0),
        "mae": lambda n: _mae(predictions, n).mean(dim=0),
        "rmse": lambda n: _rmse(predictions, n).mean(dim=0),
    }


def number_rows(predictions: NumberPredictions, seed: int = 0) -> list[dict[str, Any]]:
    """One row per number, with the keys `ROW_COLUMNS`: its true values, and scores with 95 % intervals."""
    rows = []
    for place, name in enumerate(predictions.classes):
        one = NumberPredictions(
            predictions.paths, [name], *(each[:, [place]] for each in (predictions.targets, predictions.values)),
            predictions.scale[[place]],
        )  # fmt: skip
        found = number_statistics(one, *2 * [torch.ones(len(one))])
        known = {key: found[key] for key in SCORES}
        limits = bootstrap_intervals(known, len(one), seed)
        true, once = one.targets.double(), torch.ones(len(one), 1)
        values = [name, true.mean().item(), true.std(correction=0).item()]
        for key, statistic in known.items():
            values += [statistic(once).item(), *limits[key]]
        rows.append(dict(zip(ROW_COLUMNS, (None if value != value else value for value in values), strict=True)))
    return rows


def _mae(predictions: NumberPredictions, counts: Tensor) -> Tensor:
    """`(numbers, draws)`; so are the following."""
    return predictions.errors.T @ counts / counts.sum(dim=0)


def _rmse(predictions: NumberPredictions, counts: Tensor) -> Tensor:
    return (predictions.errors.square().T @ counts / counts.sum(dim=0)).sqrt()


def _r2(predictions: NumberPredictions, counts: Tensor) -> Tensor:
    true, counts = predictions.targets.double(), counts.double()
    centred = (true - true.mean(dim=0)).T
    spread = centred.square() @ counts - (centred @ counts).square() / counts.sum(dim=0)
    spread = torch.where(spread > 1e-12 * centred.square().sum(dim=1, keepdim=True), spread, torch.nan)
    return 1 - (predictions.errors.double().square().T @ counts) / spread
