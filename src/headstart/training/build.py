"""Builds the parts of a run from its config: data, task, trainer."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.plugins.environments import SLURMEnvironment

from headstart.callbacks.batch_seeds import BatchSeeds
from headstart.callbacks.closed_form_head import ClosedFormHead
from headstart.callbacks.divergence import Divergence
from headstart.callbacks.forward_passes import ForwardPassCounter
from headstart.callbacks.time_limit import TimeLimit
from headstart.callbacks.training_metrics import TrainingMetrics
from headstart.cli.schemas import CACHES
from headstart.data.module import DataModule
from headstart.data.samples import loaders
from headstart.errors import UsageError
from headstart.finetuning.base import refuse_sharding
from headstart.tasks import checkpoint
from headstart.tasks.base import Task
from headstart.tasks.checkpoint_io import SafeCheckpointIO
from headstart.tasks.from_config import task_from_config
from headstart.training.loggers import build_logger

log = logging.getLogger(__name__)


def build_data(cfg: DictConfig) -> DataModule:
    """The data module, set up: splits and classes are found and checked."""
    data = instantiate(cfg.data)
    data.prepare_data()
    data.setup("fit")
    return data


def editable_copy(cfg: DictConfig) -> DictConfig:
    """A copy of a read-only config that may be changed."""
    copied = cfg.copy()
    OmegaConf.set_readonly(copied, False)
    return copied


def build_task(cfg: DictConfig, data: DataModule, resume_from: Path | None = None) -> Task:
    """The task for the classes of the data, new or from a checkpoint; gives the data the transforms of the model.

    Raises:
        UsageError: the checkpoint has other classes, or the task is for another number of labels per sample.
    """
    if resume_from:
        task, _ = checkpoint.load_any_task(resume_from)
        task.objective.temperature = 1.0  # it was fitted to the old weights, and training changes them
        task.objective.thresholds = None
        if task.classes != data.classes:
            raise UsageError(
                f"{resume_from} was trained on the classes {task.classes}, but the data have {data.classes}: "
                "give data.root=<the data of that run>, or start a new run without resume"
            )
    else:
        backbone = instantiate(cfg.model)
        task = task_from_config(cfg, backbone, data.classes, data.class_weights())
        if task.needs_labels:
            task.objective.fit_to(data.targets("train", range(data.num_samples["train"])))
    if task.needs_labels and task.objective.multi_label != data.samples.multi_label:
        have, want = ("several labels", "multilabel") if data.samples.multi_label else ("one class", "classification")
        raise UsageError(f"the data have {have} per sample: use task={want}")
    task.backbone.preprocess.check_kind(loaders(data.samples.load))
    if getattr(task, "test_time", None):
        task.test_time(task.backbone.preprocess.example(2))  # refuses other kinds of input before the training
    if not resume_from:
        task.backbone.preprocess = task.backbone.preprocess.fit_to(loaders(data.samples.load))
    data.connect(*task.transforms(instantiate(cfg.augmentation), data.seed))
    task.save_hyperparameters(checkpoint.describe(task, cfg))
    return task


def check_trainer(cfg: DictConfig) -> None:
    """Refuses settings of trainer and callbacks that cannot work on this machine; nothing is kept.

    Raises:
        UsageError: as in the `refuse_...` functions below.
        MisconfigurationException: from Lightning, for example if there is no GPU.
    """
    # first, because Lightning would report a missing GPU or package instead
    refuse_sharding(str(cfg.trainer.get("strategy")))
    for callback in _callbacks(cfg):
        refuse_lost_checkpoints(callback)
    if cfg.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"trainer.accelerator={cfg.trainer.accelerator}: torch finds no GPU here (torch.cuda.is_available() is "
            "false). Type trainer=cpu, or trainer=auto: a GPU if there is one"
        )
    trainer = instantiate(cfg.trainer, logger=False, enable_checkpointing=False, max_time=None)
    refuse_parallel_sweep(trainer)
    refuse_parallel_report(cfg, trainer)


def build_trainer(cfg: DictConfig, resume_from: Path | None = None) -> pl.Trainer:
    """The trainer with its callbacks, the finetuning strategy first; loggers of a resumed run continue their curves."""
    callbacks = _callbacks(cfg)
    if cfg.trainer.max_time:
        callbacks.append(TimeLimit(cfg.trainer.max_time))
    plugins: list[Any] = [SafeCheckpointIO()]
    if SLURMEnvironment.detect():  # requeueing saves within a step, where `resume` does not look
        plugins.append(SLURMEnvironment(auto_requeue=False))
    cache = [instantiate(cfg.cache[part]) for part in CACHES if cfg.cache and cfg.cache.get(part)]
    return instantiate(
        cfg.trainer,
        callbacks=[
            instantiate(cfg.finetuning),
            *cache,
            ClosedFormHead(),
            BatchSeeds(cfg.seed),
            TrainingMetrics(),
            Divergence(),
            ForwardPassCounter(),
            *callbacks,
        ],
        logger=[build_logger(node, resume_from) for node in cfg.logger.values()],
        plugins=plugins,
        max_time=None,
    )


def _callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """The callbacks of the config; without the progress bar if trainer.enable_progress_bar=false."""
    callbacks = [instantiate(node) for node in cfg.callbacks.values()]
    if cfg.trainer.enable_progress_bar:
        return callbacks
    return [callback for callback in callbacks if not isinstance(callback, ProgressBar)]


def refuse_lost_checkpoints(callback: pl.Callback) -> None:
    """Raises a UsageError if several checkpoints would have the same name and overwrite each other."""
    if not isinstance(callback, ModelCheckpoint) or callback.save_top_k in (0, 1):
        return
    if "{" not in (callback.filename or "{}"):
        raise UsageError(
            f"save_top_k={callback.save_top_k} files cannot all be called {callback.filename!r}: add a field, "
            "for example callbacks.best_checkpoint.filename='best-{epoch}'"
        )


def refuse_parallel_sweep(trainer: pl.Trainer) -> None:
    """Raises a UsageError for `-m` on several devices: each process would start the sweep again."""
    if trainer.world_size > 1 and HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:
        raise UsageError("a sweep (-m) runs on one device per job: use trainer=auto, or a shell loop over single runs")


def refuse_parallel_report(cfg: DictConfig, trainer: pl.Trainer) -> None:
    """Raises a UsageError for a report by several processes, because each one tests only its share of the samples."""
    if cfg.get("report") and trainer.world_size > 1:
        raise UsageError(
            f"report=true needs one process, but this run has {trainer.world_size}: leave it out, and afterwards type "
            "python src/report.py run=<run>"
        )
