"""The table at the end of a multirun."""

import atexit
import csv
import math
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table


class SweepTable(Callback):
    """Prints one row a job, the best last, and keeps them in `sweep.csv` in the sweep's directory, failed jobs too."""

    def __init__(self) -> None:
        self.jobs: list[tuple[list[str], float | None, str]] = []  # overrides, score, run directory

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Remembers what a job was and its best monitored score."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        score = job_return.return_value if job_return.status is JobStatus.COMPLETED else None
        folder = Path(config.hydra.sweep.dir)
        run = folder / config.hydra.sweep.subdir
        self.jobs.append((list(job_return.overrides or []), score, str(run)))

        self._write(folder / "sweep.csv")
        if len(self.jobs) == 1:
            # not on_multirun_end, which Hydra leaves out when a job has failed
            atexit.register(self._print, folder / "sweep.csv", config.monitor, config.mode)

    def _write(self, file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(("job", "score", "run"))
            rows.writerows(
                (" ".join(job), "" if score is None else f"{score:.6g}", run) for job, score, run in self.jobs
            )

    def _print(self, file: Path, monitor: str, mode: str) -> None:
        console = Console(stderr=True)
        console.print(self._table(monitor, mode))
        console.print(str(file), soft_wrap=True)

    def _table(self, monitor: str, mode: str) -> Table:
        # what all jobs share says nothing about their difference
        shared = set.intersection(*(set(job) for job, _, _ in self.jobs)) if len(self.jobs) > 1 else set()
        table = Table("job", "run", title=f"sweep: best {monitor} of each job", title_justify="left")
        table.add_column("score", justify="right")
        sign = 1 if mode == "max" else -1

        def goodness(job: tuple[list[str], float | None, str]) -> float:
            return -math.inf if job[1] is None or math.isnan(job[1]) else sign * job[1]

        for job, score, run in sorted(self.jobs, key=goodness):
            words = " ".join(word for word in job if word not in shared)
            table.add_row(words, Path(run).name, "failed" if score is None else f"{score:.4f}")
        return table
