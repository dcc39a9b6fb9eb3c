"""The table at the end of a multirun."""

import atexit
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from headstart.reporting.csv_table import write_table


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        words: its overrides.
        score: the best monitored one; None where it failed.
        run: its directory.
        seconds: how long it took.
        parameters: of its model.
    """

    words: list[str]
    score: float | None
    run: str
    seconds: float | None = None
    parameters: int | None = None


class SweepTable(Callback):
    """Prints one row a job, the best last, and keeps them in `sweep.csv` in the sweep's directory, failed jobs too."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Remembers what a job was and its best monitored score."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        score = job_return.return_value if job_return.status is JobStatus.COMPLETED else None
        folder = Path(config.hydra.sweep.dir)
        run = folder / config.hydra.sweep.subdir
        facts = run / "metrics.json"
        known = json.loads(facts.read_text(encoding="utf-8")) if score is not None and facts.is_file() else {}
        words = list(job_return.overrides or [])
        self.jobs.append(Job(words, score, str(run), known.get("seconds"), known.get("parameters")))

        # the job's own config, in which finetuning=auto may have chosen another metric; one that failed had no time to
        settled = config if score is None else job_return.cfg
        if score is not None or len(self.jobs) == 1:
            self.monitor, self.mode = settled.monitor, settled.mode
        self._write(folder / "sweep.csv")
        if len(self.jobs) == 1:
            # not on_multirun_end, which Hydra leaves out when a job has failed
            atexit.register(self._print, folder / "sweep.csv")

    def _write(self, file: Path) -> None:
        rows: list[tuple[Any, ...]] = [("job", "score", "run", "seconds", "parameters")]
        for job in self.jobs:
            score = None if job.score is None else f"{job.score:.6g}"
            rows.append((" ".join(job.words), score, job.run, job.seconds, job.parameters))
        write_table(file, rows)

    def _print(self, file: Path) -> None:
        console = Console(stderr=True, markup=False, emoji=False)  # groups=[stem] is no markup
        console.print(self._table())
        console.print(str(file), soft_wrap=True)

    def _table(self) -> Table:
        # what all jobs share says nothing about their difference
        shared = set.intersection(*(set(job.words) for job in self.jobs)) if len(self.jobs) > 1 else set()
        table = Table("job", "run", title=f"sweep: best {self.monitor} of each job", title_justify="left")
        for column in ("seconds", "parameters", "score"):
            table.add_column(column, justify="right")
        sign = 1 if self.mode == "max" else -1

        def goodness(job: Job) -> float:
            return -math.inf if job.score is None or math.isnan(job.score) else sign * job.score

        for job in sorted(self.jobs, key=goodness):
            words = " ".join(word for word in job.words if word not in shared)
            seconds = "" if job.seconds is None else f"{job.seconds:.0f}"
            parameters = "" if job.parameters is None else f"{job.parameters:,}"
            table.add_row(
                words, Path(job.run).name, seconds, parameters, "failed" if job.score is None else f"{job.score:.4f}"
            )
        return table
