"""The table of a sweep, read from the folders of its jobs."""

import atexit
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.table import Table

from headstart.cli import terminal
from headstart.cli.typed_words import as_typed_here
from headstart.files import relative_to_cwd, write_table
from headstart.metrics.scores import goodness
from headstart.runs.directory import Run

TABLE = "sweep.csv"


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        overrides: those of its command line.
        score: the best monitored score; None for a job that has not ended or did not validate.
        run: the directory of the run.
        ended: whether the run has ended; if not, it failed, was interrupted or is still running.
        seconds: duration of the run.
        parameters: number of parameters of the model.
    """

    overrides: list[str]
    score: float | None
    run: str
    ended: bool
    seconds: float | None = None
    parameters: int | None = None


class SweepTable(Callback):
    """Prints one row per job, the best last, and writes them to `sweep.csv` in the sweep's directory, failed jobs too.

    All is read from the folders of the jobs, because a parallel launcher (joblib, submitit) runs the jobs in processes
    that do not know each other.
    """

    def __init__(self) -> None:
        self.failed = 0

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Registers the table for the end of the process that started the sweep."""
        # not on_multirun_end, because Hydra does not call it after a failed job
        atexit.register(self._show_or_remove, Path(config.hydra.sweep.dir), config.monitor)

    def _show_or_remove(self, sweep: Path, monitor: str) -> None:
        """Shows the table; removes the sweep instead if all its jobs failed before they wrote anything of value."""
        runs = begun_runs(sweep)
        if runs and len(runs) == self.failed and all(run.is_worthless for run in runs):
            for run in runs:
                run.remove_if_worthless()
            for file in (sweep / "multirun.yaml", sweep / TABLE):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # it holds other files
                sweep.rmdir()
        else:
            show(sweep, monitor)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Writes the jobs so far, so that a sweep that is killed leaves its table."""
        if config.hydra.mode is RunMode.MULTIRUN:
            self.failed += getattr(job_return, "status", None) is JobStatus.FAILED
            folder = Path(config.hydra.sweep.dir)
            write(folder, find_jobs(folder))


def find_jobs(sweep: Path) -> list[Job]:
    """The jobs of a sweep directory that have begun, in their order."""
    return [_read(run) for run in begun_runs(sweep)]


def begun_runs(sweep: Path) -> list[Run]:
    """The runs in a sweep directory that have begun, in the order of their jobs."""
    folders = sorted((each for each in sweep.glob("*/") if each.name.isdecimal()), key=lambda each: int(each.name))
    return [run for run in map(Run, folders) if run.overrides is not None]


def _read(run: Run) -> Job:
    results = run.metrics if run.has_ended else {}
    return Job(
        run.overrides, results.get("score"), str(run.folder), run.has_ended, results.get("seconds"),
        results.get("parameters"),
    )  # fmt: skip


def write(sweep: Path, jobs: list[Job]) -> None:
    """Writes `sweep.csv`."""
    rows: list[tuple[Any, ...]] = [("job", "score", "run", "seconds", "parameters")]
    for job in jobs:
        score = None if job.score is None else f"{job.score:.6g}"
        rows.append((" ".join(job.overrides), score, job.run, job.seconds, job.parameters))
    write_table(sweep / TABLE, rows)


def show(sweep: Path, monitor: str) -> None:
    """Writes and prints the table of a sweep, and how to continue it if a job has not ended.

    Args:
        sweep: its directory.
        monitor: the metric on the command line; finetuning=auto may have chosen another one in the jobs.
    """
    jobs = find_jobs(sweep)
    if not jobs:
        return
    write(sweep, jobs)
    for run in (Run(Path(job.run)) for job in jobs if job.score is not None):
        monitor = run.config.monitor if run.exists else monitor
    terminal.show(_table(jobs, monitor))
    terminal.say(relative_to_cwd(sweep / TABLE))
    if not all(job.ended for job in jobs):
        terminal.say(as_typed_here(f"to continue: python src/train.py resume={relative_to_cwd(sweep)}"))


def _table(jobs: list[Job], monitor: str) -> Table:
    # overrides that all jobs share do not tell them apart
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    table = Table("job", "run", title=f"sweep: best {monitor} of each job")
    for column in ("seconds", "parameters", "score"):
        table.add_column(column, justify="right")
    for job in sorted(jobs, key=lambda job: goodness(job.score, monitor)):
        differences = " ".join(override for override in job.overrides if override not in shared)
        seconds = "" if job.seconds is None else f"{job.seconds:.0f}"
        parameters = "" if job.parameters is None else f"{job.parameters:,}"
        score = "not ended" if not job.ended else "" if job.score is None else f"{job.score:.4f}"
        table.add_row(differences, Path(job.run).name, seconds, parameters, score)
    return table
