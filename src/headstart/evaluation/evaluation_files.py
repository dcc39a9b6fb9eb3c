"""The files of an evaluation: numbers as JSON and CSV, figures as PNG."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from headstart.display import figures
from headstart.evaluation import number_files
from headstart.files import Column, as_json, replacing, write_table
from headstart.metrics import per_class
from headstart.metrics.calibration import calibration_error, reliability_bins
from headstart.metrics.intervals import f1_intervals
from headstart.metrics.mistakes import worst_mistakes, write_mistakes
from headstart.metrics.number_predictions import NumberPredictions
from headstart.metrics.predictions import Predictions, write_predictions
from headstart.runs.evaluations import evaluation_file, predictions_file
from headstart.tasks.objective import AnyPredictions

Limits = dict[str, tuple[float, float]]  # metric -> lower and upper end of its interval


@dataclass
class Evaluation:
    """The numbers of a model on a split.

    Attributes:
        facts: which checkpoint, split and settings were evaluated, as plain data.
        metrics: name -> value.
        limits: name -> 95 % interval.
        predictions: of each sample.
        uncalibrated: the predictions without the temperature; None if the model has no temperature, or numbers.
        bins: number of bins of the calibration error.
    """

    facts: dict[str, Any]
    metrics: dict[str, float]
    limits: Limits
    predictions: AnyPredictions
    uncalibrated: Predictions | None
    bins: int


def clear(folder: Path) -> None:
    """Removes the files of an earlier evaluation, so that all files of the folder are of the same model."""
    for pattern in ("*.png", "*.csv", "*.html", evaluation_file(folder).name):
        for file in folder.glob(pattern):
            file.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def write_tables_and_figures(folder: Path, evaluation: Evaluation, contents: Column | None = None) -> None:
    """Writes the tables and figures that need only the predictions; the JSON file comes last.

    Args:
        folder: of the files.
        evaluation: the numbers.
        contents: the sample of each mistake, the worst first.
    """
    write_table(folder / "metrics.csv", _metric_rows(evaluation))
    if isinstance(evaluation.predictions, NumberPredictions):
        found = number_files.write(folder, evaluation.predictions, contents)
    else:
        found = _write_classes(folder, evaluation, contents)
    content = evaluation.facts | {"metrics": _with_limits(evaluation)} | found
    with replacing(evaluation_file(folder)) as stream:
        stream.write(as_json(content))


def _write_classes(folder: Path, evaluation: Evaluation, contents: Column | None) -> dict[str, Any]:
    """Writes the files about classes, and returns what the JSON file says about them."""
    predictions = evaluation.predictions
    rows = per_class.class_rows(predictions)
    for row, limits in zip(rows, f1_intervals(predictions), strict=True):
        row |= {name: None if math.isnan(end) else end for name, end in zip(("f1_low", "f1_high"), limits, strict=True)}
    content: dict[str, Any] = {"classes": rows}
    write_predictions(predictions_file(folder), predictions)
    write_mistakes(folder / "mistakes.csv", worst_mistakes(predictions), contents)
    per_class.write_classes(folder / "classes.csv", rows)
    if predictions.multi_label:
        counts = {name: [row[name] for row in rows] for name in per_class.COUNT_COLUMNS}
        figures.save(folder / "confusion.png", figures.label_confusion(counts, predictions.classes))
    else:
        content["confused"] = per_class.confused_pairs(predictions)
        pairs = [pair.values() for pair in content["confused"]]
        write_table(folder / "confused.csv", [("true", "predicted", "samples", "share of the true class"), *pairs])
        if len(predictions.classes) <= per_class.MOST_CLASSES_IN_MATRIX:
            matrix = per_class.confusion_matrix(predictions)
            per_class.write_confusion(folder / "confusion.csv", matrix, predictions.classes)
            figures.save(folder / "confusion.png", figures.confusion(matrix, predictions.classes))
    content["ece"] = _draw_reliability(folder, evaluation)
    figures.save(folder / "roc.png", figures.roc(predictions))
    figures.save(folder / "precision_recall.png", figures.precision_recall(predictions))
    return content


def _draw_reliability(folder: Path, evaluation: Evaluation) -> dict[str, float]:
    """Draws the reliability diagram, and returns the calibration error of each of its lines."""
    shown = {"before temperature": evaluation.uncalibrated, "after": evaluation.predictions}
    if evaluation.uncalibrated is None:
        shown = {"": evaluation.predictions}
    bins = {name: reliability_bins(predictions, evaluation.bins) for name, predictions in shown.items()}
    errors = {name: calibration_error(predictions, evaluation.bins) for name, predictions in shown.items()}
    axis = "share of samples with the label" if evaluation.predictions.multi_label else "accuracy"
    figures.save(folder / "reliability.png", figures.reliability(bins, errors, axis))
    return {name or "all": error for name, error in errors.items()}


def _with_limits(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    return {
        name: {"value": value, **dict(zip(("low", "high"), evaluation.limits[name], strict=True))}
        for name, value in evaluation.metrics.items()
    }


def _metric_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    rows = [
        (name, *(f"{v:.6f}" for v in (value, *evaluation.limits[name]))) for name, value in evaluation.metrics.items()
    ]
    return [("metric", "value", "low", "high"), *rows]


def metrics_table(title: str, evaluation: Evaluation) -> Table:
    """The metrics and their intervals as a table for a terminal."""
    table = Table(title=title)
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value in evaluation.metrics.items():
        low, high = evaluation.limits[name]
        table.add_row(name, f"{value:.4f}", "-" if math.isnan(low) else f"{low:.4f} to {high:.4f}")
    return table
