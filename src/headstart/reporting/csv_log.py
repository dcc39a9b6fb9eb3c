"""Curves as a table."""

import csv
import warnings
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only


class CSVLogger(loggers.CSVLogger):
    """Lightning's, but a run that goes on keeps the rows it wrote before, where Lightning deletes them.

    What a resumed run computes again comes out the same, and is not written twice.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.earlier: set[tuple[tuple[str, str], ...]] = set()

    @property
    def experiment(self) -> ExperimentWriter:
        """The writer; made when first asked for, holding the earlier rows."""
        if self._experiment is None and rank_zero_only.rank == 0:
            file = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
            # out of the way of the deletion, and safe from a kill until the rows are written again
            kept = file.with_name("metrics.earlier.csv")
            if file.exists() and not kept.exists():
                file.replace(kept)
            rows = _read(kept)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Experiment logs directory .* exists")
                writer = super().experiment
            if rows:
                writer.metrics.extend(rows)
                writer.save()
            kept.unlink(missing_ok=True)
            self.earlier = {_as_written(row) for row in rows}
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row, unless it is an earlier one computed again."""
        row = {**metrics, "step": step}
        if _as_written(row) not in self.earlier:
            super().log_metrics(metrics, step)


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(stream)]


def _as_written(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(getattr(value, "item", lambda value=value: value)())) for key, value in row.items()))
