"""The predictions of a model for each sample of a split, and their table."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from headstart.files import write_table
from headstart.metrics.thresholds import present

MAX_CLASSES_WITH_ALL_PROBABILITIES = 100
"""With more classes the table has only two: of the true class and of the predicted one."""


@dataclass
class Predictions:
    """The predictions for a split, in the order of its samples.

    Attributes:
        paths: path of each sample relative to the root of the data, or its name if samples are not files.
        classes: class names.
        targets: class indices `(samples,)`; with several labels per sample zeros and ones `(samples, classes)`.
        probabilities: `(samples, classes)`.
        multi_label: whether a sample may have any number of labels.
        thresholds: a label counts as present above this probability, for each label; None: above 0.5.
    """

    paths: Sequence[str]
    classes: list[str]
    targets: Tensor
    probabilities: Tensor
    multi_label: bool
    thresholds: Sequence[float] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def truth(self) -> Tensor:
        """Booleans `(samples, classes)`: the classes that a sample has."""
        if self.multi_label:
            return self.targets.bool()
        return self._only(self.targets)

    @cached_property
    def answer(self) -> Tensor:
        """Booleans `(samples, classes)`: the most probable class, or all labels above their threshold."""
        if self.multi_label:
            return present(self.probabilities, self.thresholds)
        return self._only(self.predicted)

    def _only(self, chosen: Tensor) -> Tensor:
        """Booleans `(samples, classes)`, true for one class per sample; one_hot() makes int64, 8 times as large."""
        return torch.zeros_like(self.probabilities, dtype=torch.bool).scatter_(1, chosen[:, None], True)

    @cached_property
    def predicted(self) -> Tensor:
        """Index of the most probable class or label `(samples,)`."""
        return self.probabilities.argmax(dim=1)

    @cached_property
    def is_right(self) -> Tensor:
        """Booleans `(samples,)`: whether the answer is the truth; with several labels, whether all of them are."""
        return self.predicted == self.targets if not self.multi_label else (self.answer == self.truth).all(dim=1)

    def explained_name(self, output: int) -> str:
        """The name of the class that an explanation of this output is about."""
        return self.classes[output]

    def true_and_predicted_names(self, position: int) -> tuple[str, str]:
        """The class names of one sample; several labels are joined as in the split file of a run."""
        if not self.multi_label:
            return self.classes[self.targets[position]], self.classes[self.predicted[position]]
        rows = self.truth[position], self.answer[position]
        true, predicted = ("|".join(self.classes[c] for c in row.nonzero()[:, 0].tolist()) for row in rows)
        return true, predicted


def write_predictions(file: Path, predictions: Predictions) -> None:
    """Writes the columns `path,true,predicted,right` and the probabilities, one row per sample.

    The probabilities are `p(<class>)` for each class. With more than `MAX_CLASSES_WITH_ALL_PROBABILITIES` classes they
    are `p(true)` and `p(predicted)`.
    """
    write_table(file, _rows(predictions))


def read_predictions(
    file: Path, classes: list[str], multi_label: bool, thresholds: Sequence[float] | None = None
) -> Predictions | None:
    """Reads the table of `write_predictions`; None if it lacks the probabilities of some classes.

    Args:
        file: the table.
        classes, multi_label, thresholds: as in `Predictions`.
    """
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream))
    columns = [f"p({name})" for name in classes]
    if not rows or not set(columns) <= rows[0].keys():
        return None
    probabilities = torch.tensor([[float(row[column]) for column in columns] for row in rows])
    place = {name: index for index, name in enumerate(classes)}
    if multi_label:
        found = [row["true"].split("|") for row in rows]
        targets = torch.tensor([[int(name in names) for name in classes] for names in found])
    else:
        targets = torch.tensor([place[row["true"]] for row in rows])
    return Predictions([row["path"] for row in rows], classes, targets, probabilities, multi_label, thresholds)


def _rows(predictions: Predictions) -> Iterator[Sequence[str]]:
    has_all = predictions.multi_label or len(predictions.classes) <= MAX_CLASSES_WITH_ALL_PROBABILITIES
    columns = [f"p({name})" for name in predictions.classes] if has_all else ["p(true)", "p(predicted)"]
    yield ["path", "true", "predicted", "right", *columns]
    shown = predictions.probabilities
    if not has_all:
        chosen = torch.stack([predictions.targets, predictions.predicted], dim=1)
        shown = shown.gather(1, chosen)
    right = predictions.is_right.tolist()
    for place, (path, row) in enumerate(zip(predictions.paths, shown.tolist(), strict=True)):
        yield [path, *predictions.true_and_predicted_names(place), str(int(right[place])), *(f"{p:.6f}" for p in row)]
