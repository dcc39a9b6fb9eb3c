"""Where a run keeps its files, and with which config an interrupted one goes on. Loads neither torch nor Lightning."""

import logging
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from headstart.errors import UsageError

log = logging.getLogger(__name__)
CONFIG = "config.yaml"
# What may be said anew about a run that goes on; a key that ends in a dot stands for all below it
CHANGEABLE = (
    *("resume", "name", "test", "compare_scratch", "paths.logs", "data.root", "data.num_workers", "trainer."),
    *("cache", "cache."),
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
    run = path.parents[1] if path.is_file() else path
    if not (run / CONFIG).is_file():
        raise UsageError(
            f"resume={resume} is no run: give `last`, a run directory such as logs/train/runs/<date>, "
            "or a checkpoint in one, logs/train/runs/<date>/checkpoints/last.ckpt"
        )
    return str(run)


def _launch() -> str | None:
    """A name that all processes of one launch share, when something else than Lightning started them."""
    job, tasks = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_NTASKS", "1")
    if job and int(tasks) > 1 and "SLURM_PROCID" in os.environ:
        return f"slurm-{job}.{os.environ.get('SLURM_STEP_ID', '0')}"
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    if launch == "none":
        raise UsageError("torchrun gives its processes no common name: add --standalone or --rdzv-id=<name>")
    return f"torchrun-{launch}" if launch else None


def recall(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The config the run was started with, and what the command line says anew.

    Args:
        config: as composed from today's command line; `paths.run` is the run's directory.
        overrides: the command line's `key=value` words.

    Raises:
        UsageError: the run was moved, or a setting that would make it another run is given.
    """
    run, allowed = Path(config.paths.run), ", ".join(f"{c}*" if c.endswith(".") else c for c in CHANGEABLE)
    recalled = OmegaConf.load(run / CONFIG)
    if Path(recalled.paths.run) != run.resolve():
        raise UsageError(
            f"the run {run} was started in {recalled.paths.run}: move it back to go on with it, "
            f"or start a new run from its weights: model.weights={run}"
        )
    for override in overrides:
        key = override.lstrip("+~").split("=")[0]
        if not key.startswith(tuple(c for c in CHANGEABLE if c.endswith("."))) and key not in CHANGEABLE:
            raise UsageError(
                f"{override}: a run goes on as it began; with resume can be given {allowed}. "
                f"For a new run from these weights: model.weights={run}"
            )
        value = OmegaConf.select(config, key)
        if key not in ("resume", "name", "paths.logs") and OmegaConf.select(recalled, key) != value:
            log.warning("%s: this run began with %s", override, OmegaConf.select(recalled, key))
            OmegaConf.update(recalled, key, value, force_add=True)
    recalled.resume = config.resume
    return recalled
