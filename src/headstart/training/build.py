"""The parts of a run out of its config: data, task, trainer."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar, Timer
from pytorch_lightning.plugins.environments import SLURMEnvironment

from headstart.backbones.speed import choose_precision, faster_precision
from headstart.callbacks.batch_seeds import BatchSeeds
from headstart.callbacks.passes import Passes
from headstart.callbacks.solved_head import SolvedHead
from headstart.callbacks.training_metrics import TrainingMetrics
from headstart.cli.check import CACHES
from headstart.data.module import DataModule
from headstart.errors import UsageError
from headstart.finetuning.base import refuse_sharding
from headstart.tasks import checkpoint
from headstart.tasks.checkpoint_io import SafeCheckpointIO
from headstart.tasks.classification import ClassificationTask
from headstart.training.loggers import build_logger

log = logging.getLogger(__name__)


def build_data(cfg: DictConfig) -> DataModule:
    """The data module, its splits and classes found and verified."""
    data = instantiate(cfg.data)
    data.prepare_data()
    data.setup("fit")
    return data


def build_task(cfg: DictConfig, data: DataModule, point: Path | None = None) -> ClassificationTask:
    """Backbone and head for the data's classes, or the checkpoint's; tells the data what the inputs look like."""
    if point:
        task, _ = checkpoint.load_task(point)
        task.objective.temperature = 1.0  # it fitted the weights as they were, and is not handed on
        if task.classes != data.classes:
            raise UsageError(f"{point} knows the classes {task.classes}, but the data have {data.classes}")
    else:
        # a command line that names weights, as a sweep over strategies does, overrules the strategy's file
        if get_class(cfg.finetuning._target_).random_weights and cfg.model.get("weights") is not None:
            log.info("random weights, not model.weights=%s: everything learns from scratch", cfg.model.weights)
            cfg.model.weights = None
        backbone = instantiate(cfg.model)
        task = instantiate(cfg.task)(backbone=backbone, classes=data.classes, class_weights=data.class_weights())
    if task.objective.multi_label != data.samples.multi_label:
        have, want = ("several labels", "multilabel") if data.samples.multi_label else ("one class", "classification")
        raise UsageError(f"the data have {have} a sample: use task={want}")
    preprocess = task.backbone.preprocess
    augmentation = instantiate(cfg.augmentation)
    data.connect(augmentation(preprocess) if augmentation else preprocess, preprocess)
    task.save_hyperparameters(checkpoint.describe(task, cfg))
    return task


def build_trainer(cfg: DictConfig, point: Path | None = None) -> pl.Trainer:
    """The trainer with its callbacks, the finetuning strategy first, and loggers that go on with their curves."""
    callbacks = [instantiate(node) for node in cfg.callbacks.values()]
    if not cfg.trainer.enable_progress_bar:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    for callback in callbacks:
        refuse_lost_checkpoints(callback)
    if cfg.trainer.max_time:  # Lightning's would end amid an epoch, which then never is validated or gone on with
        callbacks.append(Timer(cfg.trainer.max_time, interval="epoch"))
    plugins: list[Any] = [SafeCheckpointIO()]
    if SLURMEnvironment.detect():  # its own requeueing saves amid a step, and past what `resume` looks at
        plugins.append(SLURMEnvironment(auto_requeue=False))
    # before Lightning complains that there is no GPU, or that a package is missing
    refuse_sharding(str(cfg.trainer.get("strategy")))
    # recorded, so that a resumed run computes as it began
    cfg.trainer.precision = choose_precision(cfg.trainer.precision, cfg.trainer.accelerator, precision_probe(cfg))
    cache = [instantiate(cfg.cache[part]) for part in CACHES if cfg.cache and cfg.cache.get(part)]
    trainer = instantiate(
        cfg.trainer,
        callbacks=[
            instantiate(cfg.finetuning),
            *cache,
            SolvedHead(),
            BatchSeeds(cfg.seed),
            TrainingMetrics(),
            Passes(),
            *callbacks,
        ],
        logger=[build_logger(node, point) for node in cfg.logger.values()],
        plugins=plugins,
        max_time=None,
    )
    refuse_parallel_sweep(trainer)
    refuse_parallel_report(cfg, trainer)
    return trainer


def precision_probe(cfg: DictConfig) -> Callable[[], str] | None:
    """Finds the faster precision on a CPU; None where the backbone never learns, or several processes would ask."""
    one_process = cfg.trainer.devices == 1 and cfg.trainer.get("num_nodes", 1) == 1
    if not one_process or not get_class(cfg.finetuning._target_).learns_backbone:
        return None
    model = cfg.model.copy()
    model.weights = None
    key = OmegaConf.to_yaml(model, resolve=True, sort_keys=True)
    return partial(
        faster_precision, partial(instantiate, model), key, Path(cfg.paths.cache).expanduser() / "precision.json"
    )


def refuse_lost_checkpoints(callback: pl.Callback) -> None:
    """Raises a UsageError where several checkpoints would overwrite each other under one name."""
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
        raise UsageError("a sweep (-m) runs on one device a job: use trainer=auto, or a shell loop over single runs")


def refuse_parallel_report(cfg: DictConfig, trainer: pl.Trainer) -> None:
    """Raises a UsageError for a report by several processes, each of which has its share of the test alone."""
    if cfg.get("report") and trainer.world_size > 1:
        raise UsageError(
            f"report=true is for one process, and these are {trainer.world_size}: leave it out, and afterwards type "
            "python src/report.py run=<run>"
        )
