"""Writes the curves of a run as a CSV table."""

import csv
import warnings
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only


class CSVLogger(loggers.CSVLogger):
    """Lightning's CSV logger, but a resumed run keeps its earlier rows, which Lightning deletes.

    Args:
        purge_step: rows of this step and later are dropped, because they will be computed again.
        options: of Lightning's logger.
    """

    def __init__(self, *arguments: Any, purge_step: int | None = None, **options: Any):
        super().__init__(*arguments, **options)
        self.purge_step = purge_step
        self.earlier: set[tuple[tuple[str, str], ...]] = set()

    @property
    def experiment(self) -> ExperimentWriter:
        """The writer with the earlier rows; made at first use."""
        if self._experiment is None and rank_zero_only.rank == 0:
            file = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
            # renamed, so that Lightning does not delete it and a kill does not lose the rows
            kept = file.with_name("metrics.earlier.csv")
            if file.exists() and not kept.exists():
                file.replace(kept)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Experiment logs directory .* exists")
                writer = super().experiment
            rows = self._earlier_rows(kept)
            writer.metrics.extend(rows)
            writer.save()
            self.earlier = {_as_written(row) for row in rows}
            kept.unlink(missing_ok=True)
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row unless it is there already: the last epoch of a checkpoint may end a second time."""
        if _as_written({**metrics, "step": step}) not in self.earlier:
            super().log_metrics(metrics, step)

    def _earlier_rows(self, file: Path) -> list[dict[str, str]]:
        if self.purge_step is None or not file.exists():
            return []
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(stream)]
        return [row for row in rows if int(row["step"]) < self.purge_step]


def _as_written(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(getattr(value, "item", lambda value=value: value)())) for key, value in row.items()))
