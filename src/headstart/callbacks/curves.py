"""Draws the curves of a run when training ends."""

import logging
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from headstart.callbacks.csv_logger import CSVLogger
from headstart.display.curves import draw, read
from headstart.errors import UsageError

log = logging.getLogger(__name__)


class Curves(Callback):
    """Draws the curves of the whole run from the table of `logger=csv` when training ends, also in a resumed run.

    Args:
        file: of the picture; its suffix decides the format.
    """

    def __init__(self, file: str):
        self.file = Path(file)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises a UsageError if the run writes no table."""
        if stage == "fit" and not trainer.fast_dev_run and not _tables(trainer):
            raise UsageError(
                "callbacks=curves draws the table of metrics, which this run does not write: add logger=csv"
            )

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the curves."""
        if trainer.fast_dev_run:  # it logs nothing
            return
        logger = _tables(trainer)[0]
        logger.save()
        history = read(Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE)
        if not history.points:
            log.warning("no epoch has ended: there are no curves to draw")
            return
        draw(history).savefig(self.file, dpi=120)


def _tables(trainer: pl.Trainer) -> list[CSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
