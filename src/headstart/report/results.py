"""The results of a run on a split, from the files of its evaluation: numbers, tables, figures, mistakes."""

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headstart.data.module import DataModule
from headstart.display import figures
from headstart.display.contact_sheet import is_picture
from headstart.display.page import file_uri, inline_svg, style
from headstart.errors import UsageError
from headstart.files import relative_to_cwd
from headstart.metrics.calibration import calibration_error, reliability_bins
from headstart.metrics.intervals import describe_no_mistake
from headstart.metrics.predictions import Predictions, read_predictions
from headstart.report.data_card import thumbnail_of
from headstart.report.texts import PageEntries, mistake_entries, other_entries, read_rows
from headstart.runs.directory import Run
from headstart.runs.evaluations import predictions_file
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.objective import CALIBRATION_BINS

LABELS = {
    "acc": "accuracy",
    "acc_macro": "accuracy, mean over classes",
    "acc_exact": "all labels right",
    "map": "mean average precision",
    "f1_macro": "F1, mean over classes",
    "auroc_macro": "AUROC, mean over classes",
    "ece": "calibration error (ECE)",
    "r2": "R2",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "loss": "loss",
}
PLACES = 4
MOST_CLASSES_IN_MATRIX = 12
"""With more classes, the confusion matrix is a picture instead of a table."""
MOST_CLASSES_IN_TABLE = 50
"""With more classes, only the worst ones are listed."""
MOST_CONFUSED = 10
"""Pairs of classes that are listed."""
PICTURES_OF_NUMBERS = {
    "predicted_against_true.png": "Predicted against true values: predictions on the line are right",
    "residuals.png": "Residuals: predicted minus true, over the predicted value",
}
"""File of an evaluation of numbers -> its caption."""
PICTURES = {
    "explanations.png": "The worst mistakes, each next to a heat map: which pixels led to the prediction. The network "
    "does not see what is grey",
    "neighbours.png": "The worst mistakes, each with the nearest training samples",
    "embedding.png": "The features of all samples in two dimensions, coloured by class, rings around mistakes",
    "label_errors.png": "Training samples whose labels may be wrong",
}
"""File of an evaluation -> its caption."""


@dataclass
class Metric:
    """A number and its 95 % interval; the ends are None if the interval is not known."""

    key: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def label(self) -> str:
        """The name on the page."""
        return LABELS.get(self.key, self.key)

    @property
    def interval(self) -> str:
        """The interval in words."""
        return "" if self.low is None else f"{self.low:.{PLACES}f} to {self.high:.{PLACES}f}"


@dataclass
class ShownMistake:
    """One wrong prediction; `picture` is a data URI, None if the sample is not a picture or cannot be read.

    `entry` holds the values for the template of texts; None if the sample is no text. For numbers, `true` begins with
    the name of the number, and `size` is the error; else it is the probability.
    """

    path: str
    true: str
    predicted: str
    size: str
    picture: str | None
    entry: dict[str, Any] | None = None


@dataclass
class SplitResults:
    """The contents of the section about a split.

    Attributes:
        split: train, val or test.
        metrics: in the order of `LABELS`.
        samples: number of samples; None if only the metrics from the end of training are known.
        notes: remarks on the numbers.
        classes: one row per class, the worst first.
        numbers: one row per number.
        confusion: `(classes, classes)` numbers of samples; None if `confusion_picture` takes its place.
        confused: true class, predicted class, number of samples.
        calibration: reliability diagram.
        calibrated: calibration error before and with the temperature; None if the model has none.
        confusion_picture: confusion matrix as a data URI.
        mistakes: the worst ones.
        num_mistakes: number of all mistakes.
        pictures: data URI and caption.
        texts: caption and groups of entries for the template of texts.
    """

    split: str
    metrics: list[Metric]
    samples: int | None = None
    notes: list[str] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[list[int]] | None = None
    confused: list[dict[str, Any]] = field(default_factory=list)
    calibration: Markup | None = None
    calibrated: tuple[float, float] | None = None
    confusion_picture: str | None = None
    mistakes: list[ShownMistake] = field(default_factory=list)
    num_mistakes: int = 0
    pictures: list[tuple[str, str]] = field(default_factory=list)
    texts: list[tuple[str, PageEntries]] = field(default_factory=list)


def results_of(
    run: Run, split: str, task: ClassificationTask, data: DataModule | str, worst: int
) -> SplitResults | None:
    """The results on a split; None if nothing is known about it.

    Args:
        run: whose results.
        split: train, val or test.
        task: the trained model.
        data: of the run; the reason if they cannot be read.
        worst: number of mistakes that are shown.
    """
    content = run.evaluation(split)
    if content is None:
        return _recorded_metrics(run, split)
    folder = run.evaluation_folder(split)
    metrics = [Metric(name, v["value"], v["low"], v["high"]) for name, v in _ordered(content["metrics"]).items()]
    found = SplitResults(split, [metric for metric in metrics if metric.low is not None])
    if undefined := [metric.label for metric in metrics if metric.low is None]:
        found.notes.append(f"Undefined on these samples: {', '.join(undefined)}.")
    found.samples = content["samples"]
    if "numbers" in content:
        found.numbers = content["numbers"]
        found.pictures = _pictures(folder, PICTURES_OF_NUMBERS)
    else:
        _add_classes(found, folder, content, task.classes, split)
    found.mistakes, found.num_mistakes = _mistakes(folder / f"{task.objective.worst_name}.csv", split, data, worst)
    found.notes += _notes(found, content, task.objective.temperature)
    if worst:
        found.pictures += _pictures(folder, PICTURES)
        entries = {mistake.path: mistake.entry for mistake in found.mistakes if mistake.entry}
        found.texts = other_entries(folder, entries, worst)
    return found


def without_repeats(results: list[SplitResults]) -> list[SplitResults]:
    """The results, each picture once: the evaluations of two splits show the same suspected labels of train."""
    shown: set[str] = set()
    for each in results:
        each.pictures = [(picture, label) for picture, label in each.pictures if picture not in shown]
        shown |= {picture for picture, _ in each.pictures}
    return results


def _pictures(folder: Path, captions: dict[str, str]) -> list[tuple[str, str]]:
    """The pictures that the evaluation has made, and their captions; those that cannot be shown are left out."""
    files = [(folder / name, label) for name, label in captions.items()]
    found = [(file_uri(file), label) for file, label in files if file.is_file()]
    return [(picture, label) for picture, label in found if picture]


def _add_classes(found: SplitResults, folder: Path, content: dict[str, Any], classes: list[str], split: str) -> None:
    """Adds the tables and figures about classes."""
    found.classes = sorted(content["classes"], key=lambda row: row["f1"] if row["f1"] is not None else math.inf)
    found.classes = found.classes[:MOST_CLASSES_IN_TABLE]
    found.confused = content.get("confused", [])[:MOST_CONFUSED]
    _add_confusion(found, folder, classes)
    if "after" in (errors := content.get("ece", {})):
        found.calibrated = errors["before temperature"], errors["after"]
    predictions = read_predictions(
        predictions_file(folder), classes, "confused" not in content, content.get("thresholds")
    )
    if predictions is not None:
        found.calibration = _calibration(predictions, split)
    else:  # with many classes, the table does not have all probabilities
        found.pictures += _pictures(folder, {"reliability.png": "Calibration"})


def _notes(found: SplitResults, content: dict[str, Any], temperature: float) -> list[str]:
    notes = []
    if found.num_mistakes == 0:
        sentence = describe_no_mistake(found.samples)
        notes.append(f"{sentence[0].upper()}{sentence[1:]}.")
    before = content.get("temperature", 1.0)
    if before != temperature:
        notes.append(
            f"The model now has the temperature {temperature:.3f}, but was evaluated with {before:.3f}: the "
            "probabilities and the calibration shown here are from before the change."
        )
    return notes


def _recorded_metrics(run: Run, split: str) -> SplitResults | None:
    """The metrics from the end of training, without an evaluation; None if there are none."""
    known = run.metrics_of(split)
    if not known:
        return None
    command = f"python src/evaluate.py run={relative_to_cwd(run.folder)} split={split}"
    why = "the evaluation is older than the weights" if run.evaluation_folder(split).is_dir() else "not evaluated yet"
    note = (
        f"From the end of training, without intervals ({why}). "
        f"For intervals, classes and mistakes: {command}, then make this page again."
    )
    return SplitResults(split, [Metric(name, value) for name, value in _ordered(known).items()], notes=[note])


def _ordered(metrics: dict[str, Any]) -> dict[str, Any]:
    order = [*LABELS, *metrics]
    return dict(sorted(metrics.items(), key=lambda item: order.index(item[0])))


def _add_confusion(found: SplitResults, folder: Path, classes: list[str]) -> None:
    file = folder / "confusion.csv"
    if file.is_file() and len(classes) <= MOST_CLASSES_IN_MATRIX:
        with file.open(newline="", encoding="utf-8", errors="replace") as stream:
            rows = [row[1:] for row in list(csv.reader(stream))[1:]]
        try:
            found.confusion = [[int(cell) for cell in row] for row in rows]
        except ValueError as error:
            raise UsageError(f"{file} is damaged: {error}") from error
    elif (folder / "confusion.png").is_file():
        found.confusion_picture = file_uri(folder / "confusion.png")


def _calibration(predictions: Predictions, split: str) -> Markup:
    """The reliability diagram of the predictions as they are, after a temperature if the model has one."""
    error = calibration_error(predictions, CALIBRATION_BINS)
    axis = "share of samples with the label" if predictions.multi_label else "accuracy"
    with style():
        figure = figures.reliability({"": reliability_bins(predictions, CALIBRATION_BINS)}, {"": error}, axis)
    figure.set_size_inches(4.3, 4.8)
    description = f"Probability against {axis} on {split}; expected calibration error {error:.3f}"
    return inline_svg(figure, f"calibration-{split}", description)


def _mistakes(file: Path, split: str, data: DataModule | str, worst: int) -> tuple[list[ShownMistake], int]:
    """The worst mistakes, and the number of all mistakes."""
    rows = read_rows(file)
    place = {} if isinstance(data, str) else {data.samples.names[i]: i for i in data.splits[split]}
    entries = mistake_entries(file.parent, rows[:worst])
    shown_mistakes = []
    for row in rows[:worst]:
        index, path = place.get(row["path"]), row["path"]
        picture = None
        if index is not None and path not in entries and is_picture(data.samples.load(index)):
            picture = thumbnail_of(data.samples, index)
        if "error" in row:
            true, size = f"{row['number']} {row['true']}", f"error {row['error']}"
        else:
            true, size = row["true"], f"{float(row['probability']):.3f}"
        shown_mistakes.append(ShownMistake(path, true, row["predicted"], size, picture, entries.get(path)))
    return shown_mistakes, len(rows)
