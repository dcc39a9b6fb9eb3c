"""The files of an evaluation of predicted numbers: tables as CSV, figures as PNG."""

from pathlib import Path
from typing import Any

from headstart.display import number_figures
from headstart.display.figures import save
from headstart.files import Column, write_table
from headstart.metrics.number_predictions import (
    ROW_COLUMNS,
    NumberPredictions,
    number_rows,
    shown,
    worst_errors,
    write_errors,
    write_numbers,
)
from headstart.runs.evaluations import predictions_file


def write(folder: Path, predictions: NumberPredictions, contents: Column | None) -> dict[str, Any]:
    """Writes the tables and figures, and returns what the JSON file says besides the metrics.

    Args:
        folder: of the files.
        predictions: of the split.
        contents: the sample of each error, the largest first.
    """
    rows = number_rows(predictions)
    write_numbers(predictions_file(folder), predictions)
    write_errors(folder / "errors.csv", worst_errors(predictions), contents)
    cells = [["" if v is None else shown(v) if isinstance(v, float) else v for v in row.values()] for row in rows]
    write_table(folder / "numbers.csv", [ROW_COLUMNS, *cells])
    save(folder / "predicted_against_true.png", number_figures.predicted_against_true(predictions))
    save(folder / "residuals.png", number_figures.residuals(predictions))
    return {"numbers": rows}
