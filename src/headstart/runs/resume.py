"""Where a run keeps its files, and with which config an interrupted one goes on. Loads neither torch nor Lightning."""

import logging
import os
from pathlib import Path

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from headstart.errors import UsageError

log = logging.getLogger(__name__)
CONFIG = "config.yaml"
# What may be said anew about a run that goes on: where things are, how long it lasts, what is done in the end
CHANGEABLE = (
    *("resume", "name", "paths.logs", "data.root", "data.num_workers", "test", "report", "compare_scratch"),
    *("cache", "cache.max_gb", "cache.activations", "cache.pictures"),
    *("trainer.max_epochs", "trainer.max_time", "trainer.accelerator", "trainer.enable_progress_bar"),
)


def run_directory(resume: str | None, runs: str, started: str) -> str:
    """The directory of this run: that of the run to go on with, or a new one below `runs`.

    Args:
        resume: None, `last`, a run directory, or a checkpoint in one.
        runs: the folder of the runs of one name.
        started: date and time, the new directory's name. Processes that a cluster started for one run have a name in
            common instead.

    Raises:
        UsageError: there is no such run.
    """
    if resume is None:
        return str(Path(runs) / (_launch() or started))
    if resume == "last":
        found = sorted(Path(runs).glob(f"*/{CONFIG}"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise UsageError(f"resume=last: there is no run in {runs} yet; leave resume out, or give name=<name>")
        return str(found[-1].parent.resolve())
    path = Path(resume).expanduser().resolve()
    run = path.parent.parent if path.is_file() else path
    if not (run / CONFIG).is_file():
        raise UsageError(
            f"resume={resume} is no run: give `last`, a run directory such as logs/train/runs/<date>, "
            "or a checkpoint in one, logs/train/runs/<date>/checkpoints/last.ckpt"
        )
    return str(run)


def _launch() -> str | None:
    """A name that all processes of one launch share, when something else than Lightning started them."""
    job, tasks = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_NTASKS", "1")
    by_hand = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # a shell on a node, as Lightning tells it
    if job and int(tasks) > 1 and "SLURM_PROCID" in os.environ and not by_hand:
        return f"slurm-{job}.{os.environ.get('SLURM_STEP_ID', '0')}"
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    if launch == "none":
        raise UsageError("torchrun gives its processes no common name: add --standalone or --rdzv-id=<name>")
    return f"torchrun-{launch}" if launch else None


def find_checkpoint(run: str, checkpoint: str = "best", logs: str = "logs") -> Path:
    """The checkpoint file of a run directory, or the file itself.

    Args:
        run: a directory, a file, or `last`: the run that was started last.
        checkpoint: which file of the directory's checkpoints.
        logs: the folder of all runs, for `last`.

    Raises:
        UsageError: there is none.
    """
    run = latest_run(logs) if run == "last" else run
    path = Path(run).expanduser().resolve()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"run={run}: no such file or folder; give a run directory such as logs/train/runs/<date>")
    found = sorted((path / "checkpoints").glob("*.ckpt"))
    for candidate in found:
        if candidate.stem == checkpoint:
            return candidate
    names = ", ".join(candidate.stem for candidate in found) or "none"
    raise UsageError(f"run={run}: no checkpoint {checkpoint!r} in its checkpoints folder; there are: {names}")


def latest_run(logs: str) -> str:
    """The directory of the run that was started last, of whatever name, and has a checkpoint.

    Args:
        logs: the folder of all runs.

    Raises:
        UsageError: there is none.
    """
    configs = sorted(Path(logs).expanduser().glob(f"*/runs/*/{CONFIG}"), key=lambda file: file.stat().st_mtime)
    found = [file.parent for file in configs if any(file.parent.glob("checkpoints/*.ckpt"))]
    if not found:
        raise UsageError(
            f"run=last: there is no run with a checkpoint in {logs} yet; give a run directory, or logs=<folder>"
        )
    return str(found[-1])


def was_restarted() -> bool:
    """Whether a cluster or torchrun has started this launch again, after a requeue or a crash."""
    return any(int(os.environ.get(key, 0)) > 0 for key in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))


def recall(config: DictConfig, hydra: HydraConf) -> DictConfig:
    """The config the run was started with, and what the command line says anew.

    Args:
        config: as composed from today's command line; `paths.run` is the run's directory.
        hydra: how the command line was understood.

    Raises:
        UsageError: the run was moved, a setting that would make it another run is given, or a sweep is asked for.
    """
    if hydra.mode is RunMode.MULTIRUN:
        raise UsageError("a sweep (-m) cannot be resumed as one: resume its jobs, resume=<sweep directory>/0 and so on")
    run = Path(config.paths.run)
    recalled = OmegaConf.load(run / CONFIG)
    if Path(recalled.paths.run) != run.resolve():
        raise UsageError(
            f"the run {run} was started in {recalled.paths.run}: move it back to go on with it, "
            f"or start a new run from its weights: model.weights={run}"
        )
    words = hydra.overrides.task
    # a launch that a cluster starts again repeats its words, which are in the run's config
    said_anew = any(word.lstrip("+").startswith("resume=") for word in words)
    for override in words if said_anew else []:
        key = override.lstrip("+~").split("=")[0]
        if key not in CHANGEABLE:
            raise UsageError(
                f"{override}: a run goes on as it began; with resume can be given {', '.join(CHANGEABLE)}. "
                f"For a new run from these weights: model.weights={run}"
            )
        value = OmegaConf.select(config, key)
        if key not in ("resume", "name", "paths.logs") and OmegaConf.select(recalled, key) != value:
            log.warning("%s: this run began with %s", override, OmegaConf.select(recalled, key))
            OmegaConf.update(recalled, key, value, force_add=True)
    recalled.resume = config.resume
    return recalled
