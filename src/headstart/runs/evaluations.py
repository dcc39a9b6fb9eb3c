"""The files of an evaluation folder, and whether an evaluation is of given weights."""

import csv
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from headstart.errors import UsageError
from headstart.files import read_json

TOLERANCE = 0.02
"""Two measurements of a metric by the same weights differ by less, relative to the larger of 1 and the metric itself.
They can differ a little because the numerical precision can differ."""

Answers = dict[str, tuple[str, bool | tuple[float, ...]]]
"""Name of a sample -> its label, and whether the prediction was right; for numbers the true ones joined by `|`, and the
predicted ones."""


def evaluation_file(folder: Path) -> Path:
    """The numbers of an evaluation folder."""
    return folder / "evaluation.json"


def predictions_file(folder: Path) -> Path:
    """The predictions of an evaluation folder, one row per sample."""
    return folder / "predictions.csv"


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """The numbers of an evaluation folder; None if nothing has been evaluated there."""
    file = evaluation_file(folder)
    if not file.is_file():
        return None
    found = read_json(file)
    metrics = found.get("metrics")
    if not isinstance(metrics, dict) or not all(isinstance(each, dict) for each in metrics.values()):
        raise UsageError(f"{file} is damaged: it has no metrics. Remove {folder} and evaluate again")
    return found


def read_answers(folder: Path) -> Answers | None:
    """The answers of an evaluation folder; None if nothing has been evaluated there."""
    file = predictions_file(folder)
    if not file.is_file():
        return None
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = csv.DictReader(stream)
        if "right" in (rows.fieldnames or ()):
            return {row["path"]: (row["true"], row["right"] == "1") for row in rows}
        true, predicted = ([c for c in rows.fieldnames or () if c.startswith(k)] for k in ("true(", "predicted("))
        return {row["path"]: ("|".join(row[c] for c in true), tuple(float(row[c]) for c in predicted)) for row in rows}


def is_of_these_weights(evaluation: dict[str, Any], checkpoint: Path, metrics: dict[str, float]) -> bool:
    """Whether an evaluation is of the weights in a checkpoint.

    Without fingerprints, as in earlier versions or if the checkpoint was not copied along, metrics decide. The
    calibration error does not count: a temperature that is fitted later changes it without new weights.

    Args:
        evaluation: the numbers of an evaluation folder.
        checkpoint: the file, which may be missing.
        metrics: of the same split by the weights in the checkpoint, name -> value.
    """
    if "weights" in evaluation and checkpoint.is_file():
        return evaluation["weights"] == weights_id(checkpoint)
    found = {name: metric.get("value") for name, metric in evaluation["metrics"].items() if name != "ece"}
    return all(
        found.get(name) is None or abs(found[name] - value) <= TOLERANCE * max(1, abs(value))
        for name, value in metrics.items()
    )


def weights_id(checkpoint: Path) -> str | None:
    """Identifies the tensors of a checkpoint by the checksums that its file contains; None if they cannot be read.

    No tensor is read. A temperature, which is not a tensor, does not change it.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            checksums = sorted(record.CRC for record in archive.infolist() if "/data/" in record.filename)
    except (OSError, zipfile.BadZipFile):
        return None
    return hashlib.sha256(str(checksums).encode()).hexdigest()[:16]
