"""What a run gave: the numbers of an evaluation as they were recorded, and the pictures that belong to them."""

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headstart.data.module import DataModule
from headstart.display import figures
from headstart.display.page import data_uri, inline_svg, style
from headstart.evaluation.evaluation_files import read_evaluation
from headstart.files import relative_to_cwd
from headstart.metrics.calibration import calibration_error, reliability_bins
from headstart.metrics.intervals import describe_no_mistake
from headstart.metrics.predictions import Predictions, read_predictions
from headstart.report.data_card import thumbnail_of
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.objectives import CALIBRATION_BINS

LABELS = {
    "acc": "accuracy",
    "acc_macro": "accuracy, mean over classes",
    "acc_exact": "all labels right",
    "f1_macro": "F1, mean over classes",
    "auroc_macro": "AUROC, mean over classes",
    "ece": "calibration error (ECE)",
    "loss": "loss",
}
PLACES = 4
SAME = 0.02
"""Metrics that differ by more, relative to 1 or to themselves, are of other weights; precision changes less."""
CELLS = 12
"""Up to so many classes the confusion matrix is a table; of more it is a picture."""
ROWS = 50
"""So many classes are listed, the worst ones; `classes.csv` has all."""
PAIRS = 10
PICTURES = {
    "explanations.png": "The worst mistakes, each beside a map of what in it spoke for the prediction",
    "neighbours.png": "The worst mistakes, each before the training pictures nearest to it",
    "embedding.png": "The features of all samples in two dimensions, coloured by class, mistakes ringed",
    "label_errors.png": "Training pictures whose labels are in doubt",
}


@dataclass
class Metric:
    """A number and its 95 % interval; None where nothing is known but the number."""

    key: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        return LABELS.get(self.key, self.key)

    @property
    def interval(self) -> str:
        """The interval in words."""
        return "" if self.low is None else f"{self.low:.{PLACES}f} to {self.high:.{PLACES}f}"


@dataclass
class Mistake:
    """One wrong answer; `picture` is an address, None where it is gone or no picture."""

    path: str
    true: str
    predicted: str
    probability: float
    picture: str | None


@dataclass
class Result:
    """What is told about a split.

    Attributes:
        split: which.
        metrics: the monitored ones first.
        samples: how many; None where nothing but the numbers is known.
        notes: what must be said about the numbers.
        classes: a row a class, as in `classes.csv`, the worst first.
        confusion: `(classes, classes)` samples; None where a picture takes its place.
        confused: true class, predicted class, samples.
        calibration, confusion_picture: figures.
        mistakes, num_mistakes: the worst ones, and how many there are.
        pictures: address and what it shows.
    """

    split: str
    metrics: list[Metric]
    samples: int | None = None
    notes: list[str] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[list[int]] | None = None
    confused: list[dict[str, Any]] = field(default_factory=list)
    calibration: Markup | None = None
    confusion_picture: str | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    num_mistakes: int = 0
    pictures: list[tuple[str, str]] = field(default_factory=list)


def evaluation_of(home: Path, split: str) -> dict[str, Any] | None:
    """What `evaluation_<split>` of a run holds, where it is of the weights whose metrics the run keeps; else None."""
    content = read_evaluation(home / f"evaluation_{split}")
    if content is None:
        return None
    known = run_metrics(home, split)
    for name, value in known.items():
        found = content["metrics"].get(name, {}).get("value")
        # a temperature that was fitted later changes the calibration of the same weights
        if name != "ece" and found is not None and abs(found - value) > SAME * max(1, abs(value)):
            return None
    return content


def run_metrics(home: Path, split: str) -> dict[str, float]:
    """The metrics of a split as the end of training has them, without the prefix."""
    content = json.loads((home / "metrics.json").read_text(encoding="utf-8"))
    return {k.removeprefix(f"{split}/"): v for k, v in content.items() if k.startswith(f"{split}/") and v is not None}


def result(home: Path, split: str, task: ClassificationTask, data: DataModule | str, worst: int) -> Result | None:
    """What is known of a split, None where nothing is; pictures of `worst` mistakes, where the data are there."""
    classes = task.classes
    content = evaluation_of(home, split)
    if content is None:
        return _numbers_alone(home, split)
    folder = home / f"evaluation_{split}"
    metrics = [Metric(name, v["value"], v["low"], v["high"]) for name, v in _ordered(content["metrics"]).items()]
    found = Result(split, [metric for metric in metrics if metric.low is not None])
    if undefined := [metric.label for metric in metrics if metric.low is None]:
        found.notes.append(f"Undefined on these samples: {', '.join(undefined)}.")
    found.samples = content["samples"]
    found.classes = sorted(content["classes"], key=lambda row: row["f1"] if row["f1"] is not None else math.inf)[:ROWS]
    found.confused = content.get("confused", [])[:PAIRS]
    _add_confusion(found, folder, classes)
    predictions = read_predictions(folder / "predictions.csv", classes, "confused" not in content)
    if predictions is not None:
        found.calibration = _calibration(predictions, split)
    elif (folder / "reliability.png").is_file():  # of many classes the table has not all probabilities
        found.pictures.append((data_uri((folder / "reliability.png").read_bytes(), "png"), "Calibration"))
    found.mistakes, found.num_mistakes = _mistakes(folder / "mistakes.csv", split, data, worst)
    found.notes += _notes(found, content, task.objective.temperature)
    if worst:
        files = [(folder / name, label) for name, label in PICTURES.items()]
        found.pictures += [(data_uri(f.read_bytes(), "png"), label) for f, label in files if f.is_file()]
    return found


def _notes(found: Result, content: dict[str, Any], temperature: float) -> list[str]:
    notes = []
    if found.num_mistakes == 0:
        told = describe_no_mistake(found.samples)
        notes.append(f"{told[0].upper()}{told[1:]}.")
    if content.get("temperature", 1.0) != temperature:
        notes.append(
            f"Evaluated with another temperature than the {temperature:.3f} that the model now has: probabilities and "
            "calibration are those of then."
        )
    return notes


def _numbers_alone(home: Path, split: str) -> Result | None:
    known = run_metrics(home, split)
    if not known:
        return None
    command = f"python src/evaluate.py run={relative_to_cwd(home)} split={split}"
    why = "older than the run's weights" if (home / f"evaluation_{split}").is_dir() else "not there"
    note = (
        f"As the end of training has them, without intervals: an evaluation is {why}. "
        f"For intervals, classes and mistakes: {command}, then this page again."
    )
    metrics = [Metric(name, value) for name, value in _ordered(known).items() if math.isfinite(value)]
    return Result(split, metrics, notes=[note])


def _ordered(metrics: dict[str, Any]) -> dict[str, Any]:
    order = [*LABELS, *metrics]
    return dict(sorted(metrics.items(), key=lambda item: order.index(item[0])))


def _add_confusion(found: Result, folder: Path, classes: list[str]) -> None:
    file = folder / "confusion.csv"
    if file.is_file() and len(classes) <= CELLS:
        with file.open(newline="", encoding="utf-8", errors="replace") as stream:
            found.confusion = [[int(cell) for cell in row[1:]] for row in list(csv.reader(stream))[1:]]
    elif (folder / "confusion.png").is_file():
        found.confusion_picture = data_uri((folder / "confusion.png").read_bytes(), "png")


def _calibration(predictions: Predictions, split: str) -> Markup:
    """As in `reliability.png`; before a temperature it is there alone."""
    error = calibration_error(predictions, CALIBRATION_BINS)
    axis = "share that is there" if predictions.multi_label else "accuracy"
    with style():
        figure = figures.reliability({"": reliability_bins(predictions, CALIBRATION_BINS)}, {"": error}, axis)
    figure.set_size_inches(4.3, 4.8)
    told = f"Probability against {axis} on {split}; expected calibration error {error:.3f}"
    return inline_svg(figure, f"calibration-{split}", told)


def _mistakes(file: Path, split: str, data: DataModule | str, worst: int) -> tuple[list[Mistake], int]:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream))
    place = {} if isinstance(data, str) else {data.samples.names[i]: i for i in data.splits[split]}
    shown = []
    for row in rows[:worst]:
        index = place.get(row["path"])
        picture = None
        if index is not None and getattr(data.samples.load(index), "ndim", 0) == 3:
            picture = thumbnail_of(data.samples, index)
        shown.append(Mistake(row["path"], row["true"], row["predicted"], float(row["probability"]), picture))
    return shown, len(rows)
