"""Where curves are written: Lightning's loggers, made for new runs and for those that go on."""

import importlib.util
from pathlib import Path

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from headstart import checkpoint
from headstart.errors import UsageError
from headstart.reporting.csv_log import CSVLogger

LIBRARIES = {WandbLogger: "wandb", MLFlowLogger: "mlflow"}
"""What a logger needs beside Lightning; the extra of `pyproject.toml` has the same name."""


def build_logger(node: DictConfig, point: Path | None) -> Logger:
    """A logger, told from which step on a resumed run draws its curves anew.

    Raises:
        UsageError: its library is not installed.
    """
    logger = instantiate(node, _partial_=True)
    library = LIBRARIES.get(logger.func)
    if library and importlib.util.find_spec(library) is None:
        raise UsageError(f'logger={library} needs the library {library}: pip install -e ".[{library}]"')
    if point and logger.func in (TensorBoardLogger, CSVLogger):
        return logger(purge_step=checkpoint.read(point)["global_step"])
    return logger()


def close_loggers(trainer: pl.Trainer) -> None:
    """Ends what a logger keeps open for the process: the next job of a sweep would go on in this run's curves."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and rank_zero_only.rank == 0:
            logger.experiment.finish()
