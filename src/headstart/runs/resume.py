"""The directory of a new or resumed run, and the config with which an interrupted run is resumed."""

import logging
import os
from pathlib import Path

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from headstart.errors import UsageError, printable
from headstart.runs import places
from headstart.runs.directory import LAST, Run, find_runs, latest, sweep_file
from headstart.runs.hyperparameters import key_of

log = logging.getLogger(__name__)
DEFAULT_NAME = "train"
"""The `name` of `conf/train.yaml`."""
# What a command line may change when a run is resumed: places of files, length, what happens at the end
CHANGEABLE = (
    *("resume", "name", "paths.logs", "data.root", "data.num_workers", "test", "report", "compare_scratch"),
    *("cache", "cache.max_gb", "cache.activations", "cache.pictures"),
    *("trainer.max_epochs", "trainer.max_time", "trainer.accelerator", "trainer.enable_progress_bar"),
)


def run_directory(resume: str | None, logs: str, name: str, started: str) -> str:
    """The directory of this run: an existing one to resume, or a new one.

    Args:
        resume: None, `last`, a run directory, a checkpoint in one, or the directory of a sweep. `last` is the run that
            was started last, of any name, or of the given `name` if that is not the default one.
        logs: the folder of all runs.
        name: the folder of this run's kind below `logs`.
        started: date and time, the name of a new directory. Processes that a cluster started for one run use a name
            that they have in common instead.

    Raises:
        UsageError: there is no such run.
    """
    if resume is None:
        return str(Path(logs) / name / "runs" / (_launch() or started))
    of_this_name = Path(logs) if name == DEFAULT_NAME else Path(logs) / name
    folder = _last(of_this_name) if resume == "last" else _given(resume)
    places.check_links(folder)  # here, because the log is opened next
    return str(folder)


def _given(resume: str) -> Path:
    path = Path(resume).expanduser().resolve()
    if sweep_file(path).is_file():
        return path
    run = Run.of(path) if path.is_file() else Run(path)
    if run is None or not run.exists:
        raise UsageError(
            f"resume={resume} is no run: give `last`, a run directory such as logs/train/runs/<date>, "
            f"a checkpoint in one, logs/train/runs/<date>/checkpoints/{LAST}, or a sweep, logs/train/multiruns/<date>"
        )
    return run.folder


def _last(folder: Path) -> Path:
    run = latest(find_runs(folder.expanduser()))
    if run is None:
        raise UsageError(f"resume=last: there is no run in {folder} yet; leave resume out, or give name=<name>")
    return run.folder.resolve()


def _launch() -> str | None:
    """A name that all processes of one launch share, if a cluster or torchrun has started them; else None."""
    job, tasks = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_NTASKS", "1")
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # a shell on a node: Lightning's rule
    if job and int(tasks) > 1 and "SLURM_PROCID" in os.environ and not interactive:
        return f"slurm-{job}.{os.environ.get('SLURM_STEP_ID', '0')}"
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    if launch == "none":
        raise UsageError("torchrun gives its processes no common name: add --standalone or --rdzv-id=<name>")
    return f"torchrun-{launch}" if launch else None


def was_restarted() -> bool:
    """Whether a cluster or torchrun has started this launch again, after a requeue or a crash."""
    return any(int(os.environ.get(key, 0)) > 0 for key in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))


def sweep_to_resume(config: DictConfig) -> Path | None:
    """The directory of the sweep that is to be continued; None if the config is about one run."""
    folder = Path(config.paths.run)
    return folder if config.resume is not None and sweep_file(folder).is_file() else None


def config_to_run(config: DictConfig, hydra: HydraConf) -> DictConfig:
    """The config to train with: for a new run as composed, for a resumed run the config that it was started with.

    A launch that a cluster or torchrun has started again is resumed, although its command line, which is repeated, does
    not ask for that.

    Args:
        config: as composed from the command line; `paths.run` is the run's directory.
        hydra: Hydra's own config of this launch.

    Raises:
        UsageError: the run cannot be resumed like this (see `recall`).
    """
    resumed = config.resume
    if was_restarted() and Run(Path(config.paths.run)).exists:
        resumed = config.paths.run
    return config if resumed is None else recall(config, hydra, resumed)


def recall(config: DictConfig, hydra: HydraConf, resumed: str) -> DictConfig:
    """The config that the run was started with, and the changes of the command line.

    Args:
        config: as composed from the command line; `paths.run` is the run's directory.
        hydra: Hydra's own config of this launch.
        resumed: the run directory or checkpoint to resume from, or `last`.

    Raises:
        UsageError: a setting is given that would make it another run, or the launch is a sweep.
    """
    if hydra.mode is RunMode.MULTIRUN:
        raise UsageError("to continue a sweep, leave out -m: resume=<sweep directory>")
    run = Run(Path(config.paths.run))
    recalled = run.config.copy()
    _warn_of_other_owner(run)
    if Path(recalled.paths.run) != run.folder.resolve():
        log.warning("this run was started in %s; it continues in %s", printable(str(recalled.paths.run)), run.folder)
    # never the saved paths: they may be wrong on this machine, or chosen by an attacker
    recalled.paths = OmegaConf.to_container(config.paths, resolve=True)
    recalled.paths.run = str(run.folder.resolve())
    places.check_places(recalled, run.folder, config)
    for override in _changes(hydra.overrides.task):
        _change(recalled, config, override, run)
    recalled.resume = resumed
    return recalled


def _warn_of_other_owner(run: Run) -> None:
    owner = run.config_file.stat().st_uid
    if hasattr(os, "getuid") and owner != os.getuid():
        log.warning("%s belongs to another user (%s): is it the run that you mean?", run.folder, owner)


def _changes(overrides: list[str]) -> list[str]:
    """The overrides that are to change a resumed run.

    A launch that is started again repeats the overrides of its run: those are in the run's config already.
    """
    return overrides if any(override.lstrip("+").startswith("resume=") for override in overrides) else []


def _change(recalled: DictConfig, config: DictConfig, override: str, run: Run) -> None:
    """Applies one override to the recalled config."""
    key = key_of(override)
    if key not in CHANGEABLE:
        raise UsageError(
            f"{override}: a resumed run keeps its settings; only these can be changed: {', '.join(CHANGEABLE)}. "
            f"For a new run from these weights: model.weights={run.folder}"
        )
    value = OmegaConf.select(config, key)
    if key not in ("resume", "name", "paths.logs") and OmegaConf.select(recalled, key) != value:
        log.warning("%s: this run began with %s", override, OmegaConf.select(recalled, key))
        OmegaConf.update(recalled, key, value, force_add=True)
