"""One training run: data, model, trainer, fit, test, and what is kept of it."""

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from headstart import checkpoint
from headstart.data.base import SPLITS, DataModule
from headstart.errors import UsageError
from headstart.hardware import choose_precision
from headstart.reporting.tables import data_table
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)


@dataclass
class Result:
    """What a run gives: the best monitored score, the metrics of that model, and how many samples it learned from."""

    score: float | None
    metrics: dict[str, float]
    num_train: int


def train(cfg: DictConfig) -> Result:
    """Trains and tests as the config says; everything that remains is under `cfg.paths.run`."""
    started = time.monotonic()
    run = Path(cfg.paths.run)
    run.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    # cheap things first: a device that is not there is told before anything is scanned or downloaded
    trainer = build_trainer(cfg)
    data = build_data(cfg)
    anchor(cfg)
    show_data(data)
    task = build_task(cfg, data)
    write_facts(run, cfg, task)
    try:
        trainer.fit(task, data)
    except SystemExit:  # what Lightning makes of Ctrl-C
        if (run / "checkpoints" / "best.ckpt").exists():
            log.warning("interrupted; what was reached: python src/evaluate.py run=%s split=val", _short(run))
        raise
    result = summarise(cfg, trainer, task, data)
    write_result(run, result, time.monotonic() - started)
    return result


def train_from_scratch(cfg: DictConfig, transfer: Result) -> None:
    """Trains the same network from random weights on the same samples, and prints both results."""
    scratch = cfg.copy()
    scratch.model.weights = None
    scratch.paths.run = f"{cfg.paths.run}/scratch"
    log.info("\nThe same network from random weights, on the same samples:")
    reference = train(scratch)
    if rank_zero_only.rank == 0:
        print(f"\ntransfer against scratch, {transfer.num_train} labelled samples:")
        for name, value in transfer.metrics.items():
            print(f"  {name}: {value:.4f} against {reference.metrics[name]:.4f}")


def anchor(cfg: DictConfig) -> None:
    """Makes the paths a person typed absolute, once they exist, so that the run can be used from any folder."""
    for part, key in (("data", "root"), ("model", "weights")):
        given = cfg[part].get(key)
        if given is not None and Path(given).expanduser().exists():
            cfg[part][key] = str(Path(given).expanduser().resolve())


def build_data(cfg: DictConfig) -> DataModule:
    """The data module, its splits and classes found and verified."""
    data = instantiate(cfg.data)
    data.prepare_data()
    data.setup("fit")
    return data


def build_task(cfg: DictConfig, data: DataModule) -> ClassificationTask:
    """Backbone and head for the data's classes; tells the data what the backbone's inputs look like."""
    backbone = instantiate(cfg.model)
    task = instantiate(cfg.task)(backbone=backbone, classes=data.classes, class_weights=data.class_weights())
    if task.objective.multi_label != data.samples.multi_label:
        have, want = ("several labels", "multilabel") if data.samples.multi_label else ("one class", "classification")
        raise UsageError(f"the data have {have} a sample: use task={want}")
    preprocess = backbone.preprocess
    augmentation = instantiate(cfg.augmentation)
    data.connect(augmentation(preprocess) if augmentation else preprocess, preprocess)
    task.save_hyperparameters(checkpoint.describe(task, cfg))
    return task


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """The trainer with its callbacks, the finetuning strategy last, and loggers."""
    callbacks = [instantiate(node) for node in cfg.callbacks.values()]
    if not cfg.trainer.enable_progress_bar:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    for callback in callbacks:
        refuse_lost_checkpoints(callback)
    trainer = instantiate(
        cfg.trainer,
        precision=choose_precision(cfg.trainer.precision, cfg.trainer.accelerator),
        callbacks=[*callbacks, instantiate(cfg.finetuning)],
        logger=[instantiate(node) for node in cfg.logger.values()],
    )
    refuse_broken_ddp(trainer)
    return trainer


def refuse_lost_checkpoints(callback: pl.Callback) -> None:
    """Raises a UsageError where several checkpoints would overwrite each other under one name."""
    if not isinstance(callback, ModelCheckpoint) or callback.save_top_k in (0, 1):
        return
    if "{" not in (callback.filename or "{}"):
        raise UsageError(
            f"save_top_k={callback.save_top_k} files cannot all be called {callback.filename!r}: add a field, "
            "for example callbacks.best_checkpoint.filename='best-{epoch}'"
        )


def refuse_broken_ddp(trainer: pl.Trainer) -> None:
    """Raises a UsageError where several processes would crash or disagree."""
    if trainer.world_size == 1:
        return
    if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:
        raise UsageError("a sweep (-m) runs on one device a job: use trainer=auto, or a shell loop over single runs")
    if not getattr(trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters"):
        raise UsageError("several devices need trainer=ddp (GPUs) or trainer=ddp_cpu: parts are frozen after the wrap")


@rank_zero_only
def show_data(data: DataModule) -> None:
    """Prints how many samples of which class are where."""
    counts = {split: data.class_counts(split) for split in SPLITS if data.num_samples[split]}
    Console(stderr=True).print(data_table(data.classes, counts))


@rank_zero_only
def write_facts(run: Path, cfg: DictConfig, task: ClassificationTask) -> None:
    """Writes the composed config and the class map of the run."""
    OmegaConf.save(cfg, run / "config.yaml", resolve=True)
    class_map = {name: index for index, name in enumerate(task.classes)}
    (run / "classes.json").write_text(json.dumps(class_map, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def summarise(cfg: DictConfig, trainer: pl.Trainer, task: ClassificationTask, data: DataModule) -> Result:
    """The best epoch's validation metrics and, once, the test metrics of those weights."""
    watching = [c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None) == cfg.monitor]
    path = watching[0].best_model_path if watching and not trainer.fast_dev_run else ""
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    if path:  # callback_metrics hold the last epoch, not the best
        metrics = checkpoint.read(Path(path))["metrics"]
        log.info("best %s %.4f: %s", cfg.monitor, metrics[cfg.monitor], _short(Path(path)))
    elif not trainer.fast_dev_run:
        log.warning("no checkpoint watches %s: these are the last epoch's weights", cfg.monitor)
    score = metrics.get(cfg.monitor)
    metrics = {name: value for name, value in metrics.items() if name.startswith("val/")}
    if cfg.test and data.num_samples["test"]:
        (tested,) = trainer.test(task, datamodule=data, ckpt_path=path or None, verbose=False)
        metrics |= tested
    return Result(score, metrics, data.num_samples["train"])


@rank_zero_only
def write_result(run: Path, result: Result, seconds: float) -> None:
    """Prints and writes the metrics of the run."""
    content: dict[str, Any] = {"score": result.score, "seconds": round(seconds, 1), **result.metrics}
    (run / "metrics.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, value in result.metrics.items():
        print(f"{name}: {value:.4f}")
    log.info("%.0f s; evaluate again with: python src/evaluate.py run=%s", seconds, _short(run))


def _short(path: Path) -> str:
    """Relative to where the person is, when it lies below."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
