"""The table at the end of a multirun."""

import csv
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table


class SweepTable(Callback):
    """Prints one row a job, best last, and writes them to `sweep.csv` in the sweep's directory."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float | None, str]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Remembers what a job was and its best monitored score."""
        done = job_return.status is JobStatus.COMPLETED
        score = job_return.return_value if done else None
        self.rows.append((" ".join(job_return.overrides or []), score, job_return.working_dir or ""))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints and writes the table."""
        if not self.rows:
            return
        folder = Path(config.hydra.sweep.dir)
        with (folder / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("job", "score", "run"), *self.rows])
        table = Table("job", "run", title=f"sweep: best {config.monitor} of each job", title_justify="left")
        table.add_column("score", justify="right")
        sign = 1 if config.mode == "max" else -1
        for job, score, run in sorted(
            self.rows, key=lambda row: sign * row[1] if row[1] is not None else -float("inf")
        ):
            table.add_row(job, Path(run).name, "failed" if score is None else f"{score:.4f}")
        Console(stderr=True).print(table, f"{folder / 'sweep.csv'}")
