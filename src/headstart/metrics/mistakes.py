"""The worst mistakes: where the model was wrong and most sure of it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from headstart.files import write_table
from headstart.metrics.predictions import Predictions


@dataclass(frozen=True)
class Mistake:
    """One wrong answer.

    Attributes:
        position: of the sample in its split.
        path: of the sample.
        true, predicted: class names; of several labels a sample the one that is most wrong, `not <label>` where it is
            not there or was not seen.
        probability: of what was predicted.
        shown_class: the class whose probability it is, for maps of what speaks for it.
    """

    position: int
    path: str
    true: str
    predicted: str
    probability: float
    shown_class: int


def worst_mistakes(predictions: Predictions) -> list[Mistake]:
    """All mistakes, those of the highest probability first."""
    of = _of_label if predictions.multi_label else _of_class
    found = [of(predictions, position) for position in (~predictions.is_right).nonzero()[:, 0].tolist()]
    return sorted(found, key=lambda mistake: -mistake.probability)


def _of_class(predictions: Predictions, position: int) -> Mistake:
    true, predicted = predictions.targets[position].item(), predictions.predicted[position].item()
    names = predictions.classes[true], predictions.classes[predicted]
    probability = predictions.probabilities[position, predicted].item()
    return Mistake(position, predictions.paths[position], *names, probability, predicted)


def _of_label(predictions: Predictions, position: int) -> Mistake:
    said = torch.where(predictions.answer[position], *_both(predictions.probabilities[position]))
    wrong = predictions.answer[position] != predictions.truth[position]
    label = torch.where(wrong, said, -1).argmax().item()
    name, seen = predictions.classes[label], predictions.answer[position, label].item()
    names = (f"not {name}", name) if seen else (name, f"not {name}")
    return Mistake(position, predictions.paths[position], *names, said[label].item(), label)


def _both(probability: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return probability, 1 - probability


def write_mistakes(file: Path, mistakes: list[Mistake]) -> None:
    """Writes `path,true,predicted,probability`, the worst first."""
    rows = ([m.path, m.true, m.predicted, f"{m.probability:.6f}"] for m in mistakes)
    write_table(file, [["path", "true", "predicted", "probability"], *rows])
