"""Finds the learning rate of a run before it begins."""

import logging
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng

from headstart.callbacks.range_test import RangeTest
from headstart.data.module import DataModule
from headstart.training.build import build_task, build_trainer

log = logging.getLogger(__name__)


def find_rate(cfg: DictConfig, data: DataModule) -> None:
    """Puts the rate that a range test suggests into the config; the test leaves nothing else but a picture of it.

    It is a training of its own, on a task of its own, so that strategy and caches serve it as they do the run.
    """
    if cfg.trainer.fast_dev_run:
        log.info("lr_find=true: not in a run that sees one batch")
        return
    rehearsal = cfg.copy()
    rehearsal.update({"scheduler": None, "callbacks": {}, "logger": {}})
    rehearsal.trainer.update({"max_epochs": -1, "max_time": None, "limit_val_batches": 1})
    rehearsal.trainer.enable_progress_bar = False
    for key, value in {"enable_checkpointing": False, "max_steps": -1}.items():
        OmegaConf.update(rehearsal, f"trainer.{key}", value, force_add=True)
    started = time.monotonic()
    with isolate_rng():
        trainer, test = build_trainer(rehearsal), RangeTest()
        trainer.callbacks.append(test)
        trainer.fit(build_task(rehearsal, data), data)
    found = float(f"{test.suggestion():.2g}")
    log.info(
        "optimizer.lr=%g instead of %g: a range test of %d steps, %.0f s (lr_find.png)",
        *(found, cfg.optimizer.lr, len(test.losses), time.monotonic() - started),
    )
    cfg.optimizer.lr = found
    if rank_zero_only.rank == 0:
        test.draw(Path(cfg.paths.run) / "lr_find.png")
