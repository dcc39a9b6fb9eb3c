"""What a model said about each sample of a split, and the table of it."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from headstart.files import write_table

ALL_PROBABILITIES = 100
"""Up to so many classes the table has a column of probabilities for each; else only those of truth and answer."""


@dataclass
class Predictions:
    """The answers for a split, in its order.

    Attributes:
        paths: of each sample, relative to the root of the data; where samples are no files, their names.
        classes: class names.
        targets: class indices `(samples,)`, or for several labels a sample zeros and ones `(samples, classes)`.
        probabilities: `(samples, classes)`.
        multi_label: whether a sample may carry any number of labels.
    """

    paths: Sequence[str]
    classes: list[str]
    targets: Tensor
    probabilities: Tensor
    multi_label: bool

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def truth(self) -> Tensor:
        """Zeros and ones `(samples, classes)`: which classes a sample has."""
        if self.multi_label:
            return self.targets.bool()
        return torch.nn.functional.one_hot(self.targets, len(self.classes)).bool()

    @cached_property
    def answer(self) -> Tensor:
        """Zeros and ones `(samples, classes)`: the most probable class, or the labels more likely than not."""
        if self.multi_label:
            return self.probabilities > 0.5
        return torch.nn.functional.one_hot(self.predicted, len(self.classes)).bool()

    @cached_property
    def predicted(self) -> Tensor:
        """`(samples,)`, the most probable class; of several labels a sample the most probable one."""
        return self.probabilities.argmax(dim=1)

    @cached_property
    def is_right(self) -> Tensor:
        """`(samples,)`: whether the answer is the truth, of several labels all of them."""
        return self.predicted == self.targets if not self.multi_label else (self.answer == self.truth).all(dim=1)

    def named(self, row: Tensor) -> str:
        """The class names of a row of `truth` or `answer`, joined as in the split file of a run."""
        return "|".join(self.classes[c] for c in row.nonzero()[:, 0].tolist())


def write_predictions(file: Path, predictions: Predictions) -> None:
    """Writes `path,true,predicted,right` and probabilities, one row a sample.

    Up to `ALL_PROBABILITIES` classes there is a column `p(<class>)` for each; else `p(true)` and `p(predicted)`.
    """
    write_table(file, _rows(predictions))


def read_predictions(file: Path, classes: list[str], multi_label: bool) -> Predictions | None:
    """What `write_predictions` wrote; None where it has not the probabilities of all classes."""
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
    return Predictions([row["path"] for row in rows], classes, targets, probabilities, multi_label)


def _rows(predictions: Predictions) -> Iterator[Sequence[str]]:
    whole = predictions.multi_label or len(predictions.classes) <= ALL_PROBABILITIES
    columns = [f"p({name})" for name in predictions.classes] if whole else ["p(true)", "p(predicted)"]
    yield ["path", "true", "predicted", "right", *columns]
    shown = predictions.probabilities
    if not whole:
        chosen = torch.stack([predictions.targets, predictions.predicted], dim=1)
        shown = shown.gather(1, chosen)
    right = predictions.is_right.tolist()
    for place, (path, row) in enumerate(zip(predictions.paths, shown.tolist(), strict=True)):
        true, predicted = predictions.named(predictions.truth[place]), predictions.named(predictions.answer[place])
        yield [path, true, predicted, str(int(right[place])), *(f"{p:.6f}" for p in row)]
