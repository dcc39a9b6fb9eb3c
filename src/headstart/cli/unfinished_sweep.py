"""Continues a sweep: jobs that ended stay as they are, the others are resumed or started."""

import logging
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from headstart.cli import sweep_table
from headstart.cli.conf_files import choices_by_group
from headstart.cli.overrides import compose_config
from headstart.cli.schemas import TrainConfig
from headstart.errors import Failure, UsageError, printable
from headstart.files import read_yaml, relative_to_cwd
from headstart.runs.directory import Run, sweep_file
from headstart.runs.hyperparameters import key_of
from headstart.runs.trust import check_config

log = logging.getLogger(__name__)
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class PlannedJob:
    """One job of a sweep, which may have ended, have begun, or wait.

    Attributes:
        folder: of its run.
        overrides: of its command line, without `paths.logs`: the folder is known.
    """

    folder: Path
    overrides: list[str]

    def command(self, changes: list[str]) -> list[str]:
        """The command line that resumes or starts the job."""
        if Run(self.folder).exists:
            return [f"resume={self.folder}", *changes]
        return [*self.overrides, *changes, f"hydra.run.dir={self.folder}"]


def continue_sweep(sweep: Path, config: DictConfig, overrides: list[str]) -> None:
    """Runs the jobs of a sweep that have not ended, one after the other, each in a process of its own.

    Args:
        sweep: the directory of the sweep.
        config: as composed from the command line.
        overrides: of the command line; all but `resume` go to every job.

    Raises:
        UsageError: a job that has not begun would build what may not be built from a received file.
        Failure: a job failed; all others were run before.
    """
    jobs = planned_jobs(sweep)
    waiting = [job for job in jobs if not Run(job.folder).has_ended]
    log.info("sweep %s: %d of %d jobs have ended", relative_to_cwd(sweep), len(jobs) - len(waiting), len(jobs))
    for job in waiting:
        if not Run(job.folder).exists:
            _refuse_foreign_parts(job.overrides)
    changes = [override for override in overrides if key_of(override) != "resume"]
    failed = []
    for job in waiting:
        command = job.command(changes)
        log.info("\njob %s: %s", job.folder.name, " ".join(job.overrides))
        if _run([sys.executable, sys.argv[0], *command]):
            failed.append(job.folder.name)
    sweep_table.show(sweep, config.monitor)
    if failed:
        raise Failure(f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}. Their messages are above")


def planned_jobs(sweep: Path) -> list[PlannedJob]:
    """The jobs of a sweep in their order; of a sweep that chooses each job by earlier ones, those that have begun.

    Raises:
        UsageError: the record of the sweep cannot be read.
    """
    content = read_yaml(sweep_file(sweep))
    try:
        record = content["hydra"]
        sweeper, params = record["sweeper"]["_target_"], record["sweeper"].get("params")
        typed = list(record["overrides"]["task"])
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise UsageError(f"{sweep_file(sweep)} is no record of a sweep: {reason}") from error
    if sweeper != BASIC:
        log.warning("the sweeper of this sweep plans its jobs one by one: only those that have begun are continued")
        return [_planned(run.folder, run.overrides) for run in sweep_table.begun_runs(sweep)]
    words = [*(f"{key}={value}" for key, value in (params or {}).items()), *typed]
    (planned,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)
    return [_planned(sweep / str(number), overrides) for number, overrides in enumerate(planned)]


def _planned(folder: Path, overrides: Iterable[str]) -> PlannedJob:
    return PlannedJob(folder, [override for override in overrides if key_of(override) != "paths.logs"])


def _refuse_foreign_parts(overrides: list[str]) -> None:
    """Checks what overrides from a file would do, because the file may come from a stranger.

    Raises:
        UsageError: they change something else than settings of training, or would build what is not allowed.
    """
    known = {*TrainConfig.__dataclass_fields__, *choices_by_group()} - {"resume", "paths", "hydra"}
    for override in overrides:
        section = re.split(r"[.@/]", key_of(override))[0]
        if override.startswith("-") or "/" in key_of(override) or section not in known:
            raise UsageError(f"REFUSED: the record of the sweep changes {printable(override)[:100]}. Nothing was run")
    config = OmegaConf.to_container(compose_config("train", overrides))
    # paths are our own, and read the environment
    check_config({**config, "paths": None, "overrides": overrides})


def _run(command: list[str]) -> int:
    """The exit code of a process; a signal to this process goes to it, too, and is waited for.

    Raises:
        SystemExit: the process was ended by Ctrl-C or SIGTERM.
    """
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # a terminal has sent it to both
        process.wait()
        raise
    except SystemExit:
        process.terminate()
        process.wait()
        raise
    if code in (130, 143):
        raise SystemExit(code)
    return code
