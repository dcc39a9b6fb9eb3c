"""Trains a separate task for a few steps, to find a setting of the run."""

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback

from headstart.data.module import DataModule
from headstart.training.build import build_task, build_trainer


def rehearse(cfg: DictConfig, data: DataModule, callback: Callback, max_steps: int = -1, cached: bool = True) -> None:
    """Trains a separate task with a separate trainer, so that strategy and caches work as in the run.

    It has no scheduler, no loggers and none of the callbacks of conf/callbacks. It writes no checkpoint and validates
    on one batch. It uses random numbers: call it inside `isolate_rng`.

    Args:
        cfg: of the run.
        data: of the run, set up.
        callback: controls the rehearsal; it is called after the strategy.
        max_steps: optimizer steps; -1: until the callback ends the training.
        cached: whether the caches serve it.
    """
    rehearsal = cfg.copy()
    rehearsal.update({"scheduler": None, "callbacks": {}, "logger": {}})
    if not cached:
        rehearsal.cache = None
    rehearsal.trainer.update({"max_epochs": -1, "max_time": None, "limit_val_batches": 1})
    rehearsal.trainer.enable_progress_bar = False
    for key, value in {"enable_checkpointing": False, "max_steps": max_steps}.items():
        OmegaConf.update(rehearsal, f"trainer.{key}", value, force_add=True)
    trainer = build_trainer(rehearsal)
    trainer.callbacks.append(callback)
    trainer.fit(build_task(rehearsal, data), data)
