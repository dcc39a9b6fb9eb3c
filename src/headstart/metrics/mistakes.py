"""The worst mistakes: the wrong predictions with the highest probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from headstart.files import Column, with_column, write_table
from headstart.metrics.predictions import Predictions


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        position: of the sample in its split.
        path: of the sample.
        true, predicted: class names. With several labels per sample they name the label with the worst mistake:
            `<label>`, or `not <label>` if it is absent.
        probability: of the prediction.
        shown_class: index of the class or label, for heat maps that explain the prediction.
    """

    position: int
    path: str
    true: str
    predicted: str
    probability: float
    shown_class: int

    measure: ClassVar[str] = "prob."
    """The word for `measured`, in a table."""

    @property
    def measured(self) -> str:
        """How bad it is: the probability."""
        return f"{self.probability:.3f}"

    @property
    def lines(self) -> tuple[str, ...]:
        """A few words about it, as a caption."""
        return f"true: {self.true}", f"predicted: {self.predicted}", f"with {self.measured}"


def worst_mistakes(predictions: Predictions) -> list[Mistake]:
    """All mistakes, sorted by probability, the highest first."""
    describe = _label_mistake if predictions.multi_label else _class_mistake
    found = [describe(predictions, position) for position in (~predictions.is_right).nonzero()[:, 0].tolist()]
    return sorted(found, key=lambda mistake: -mistake.probability)


def _class_mistake(predictions: Predictions, position: int) -> Mistake:
    true, predicted = predictions.targets[position].item(), predictions.predicted[position].item()
    names = predictions.classes[true], predictions.classes[predicted]
    probability = predictions.probabilities[position, predicted].item()
    return Mistake(position, predictions.paths[position], *names, probability, predicted)


def _label_mistake(predictions: Predictions, position: int) -> Mistake:
    answer, probability = predictions.answer[position], predictions.probabilities[position]
    confidence = torch.where(answer, probability, 1 - probability)
    wrong = answer != predictions.truth[position]
    label = torch.where(wrong, confidence, -1).argmax().item()
    name = predictions.classes[label]
    names = (f"not {name}", name) if answer[label] else (name, f"not {name}")
    return Mistake(position, predictions.paths[position], *names, confidence[label].item(), label)


def write_mistakes(file: Path, mistakes: list[Mistake], contents: Column | None = None) -> None:
    """Writes the columns `path,true,predicted,probability`, the worst mistake first.

    Args:
        file: a CSV file.
        mistakes: the rows.
        contents: the sample of each mistake, for one more column.
    """
    rows = [[m.path, m.true, m.predicted, f"{m.probability:.6f}"] for m in mistakes]
    write_table(file, with_column([["path", "true", "predicted", "probability"], *rows], contents))
