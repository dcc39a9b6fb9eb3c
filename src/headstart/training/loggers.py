"""Builds Lightning's loggers for new and for resumed runs."""

import sys
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from headstart.callbacks.csv_logger import CSVLogger
from headstart.cli.early_checks import missing_library
from headstart.errors import UsageError
from headstart.tasks import checkpoint


def build_logger(node: DictConfig, resume_from: Path | None) -> Logger:
    """A logger; for a resumed run, one that replaces its curves from the step of the checkpoint on.

    Args:
        node: its section of the config.
        resume_from: checkpoint of a resumed run.

    Raises:
        UsageError: its library is not installed.
    """
    logger = instantiate(node, _partial_=True)
    if missing := missing_library(node):
        raise UsageError(missing)
    if logger.func is WandbLogger:
        finish_wandb(exit_code=1)  # a failed job of a sweep may have left its run open
    if resume_from and logger.func in (TensorBoardLogger, CSVLogger):
        return logger(purge_step=checkpoint.read(resume_from)["global_step"])
    return logger()


def finish_wandb(exit_code: int = 0) -> None:
    """Ends the run that wandb keeps open in this process; otherwise the next job of a sweep would add to its curves."""
    wandb = sys.modules.get("wandb")
    if wandb and wandb.run and rank_zero_only.rank == 0:
        wandb.finish(exit_code)
