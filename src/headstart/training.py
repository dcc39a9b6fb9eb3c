"""One training run: data, model, trainer, fit, test, and what is kept of it."""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LambdaCallback, ModelCheckpoint, ProgressBar, Timer
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console

from headstart import auto, checkpoint, resume
from headstart.callbacks.batch_seeds import BatchSeeds
from headstart.callbacks.blend import Blend
from headstart.callbacks.collection import Collection
from headstart.callbacks.range_test import RangeTest
from headstart.callbacks.solved_head import SolvedHead
from headstart.callbacks.training_metrics import TrainingMetrics
from headstart.checkpoint_io import SafeCheckpointIO
from headstart.config import CACHES
from headstart.data.base import SPLITS, DataModule
from headstart.errors import UsageError
from headstart.files import replacing
from headstart.finetuning.base import refuse_sharding
from headstart.hardware import choose_precision, faster_precision
from headstart.loggers import build_logger, close_loggers
from headstart.reporting.tables import data_table
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)


@dataclass
class Result:
    """What a run gives.

    Attributes:
        score: the best monitored one.
        metrics: of that model.
        num_train: how many samples it learned from.
        parameters: how many the model has.
    """

    score: float | None
    metrics: dict[str, float]
    num_train: int
    parameters: int


def run(cfg: DictConfig) -> Result:
    """Trains as the config says and, where it asks for that, the same network from random weights."""
    try:
        result = train(cfg)
        if cfg.compare_scratch and cfg.model.get("weights") is not None:
            train_from_scratch(cfg, result)
    except SystemExit:  # what Ctrl-C and SIGTERM become
        if not cfg.trainer.fast_dev_run:
            log.warning("interrupted; to go on: python src/train.py resume=%s", _short(Path(cfg.paths.run)))
        raise
    return result


def train(cfg: DictConfig) -> Result:
    """Trains and tests once; everything that remains is under `cfg.paths.run`."""
    started = time.monotonic()
    run = Path(cfg.paths.run)
    refuse_occupied(run, cfg)
    run.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    # cheap things first: a device that is not there is told before anything is scanned or downloaded
    point = resume_point(cfg)
    data = None
    if cfg.auto and cfg.resume is None:
        data = build_data(cfg)
        auto.settle(cfg, data)
    trainer = build_trainer(cfg, point)
    data = data or build_data(cfg)
    anchor(cfg)
    show_data(data)
    if cfg.lr_find and cfg.resume is None:
        find_rate(cfg, data)
    task = build_task(cfg, data, point)
    if point:  # not before the checkpoint is found to fit: a refused change must not stay
        trainer.callbacks.insert(1, LambdaCallback(on_train_start=lambda *_: write_facts(run, cfg, task)))
    else:
        write_facts(run, cfg, task)
    trainer.fit(task, data, ckpt_path=point, weights_only=True)
    collection = Collection()
    if cfg.report:
        trainer.callbacks.append(collection)
    result = summarise(cfg, trainer, task, data)
    write_result(run, result, time.monotonic() - started)
    if cfg.report and not cfg.trainer.fast_dev_run:
        # imported here: a run that draws nothing does not wait for matplotlib
        from headstart.report.build import report_on

        report_on(cfg, task, data, trainer, collection, result.metrics)
    close_loggers(trainer)
    return result


def train_from_scratch(cfg: DictConfig, transfer: Result) -> None:
    """Trains the same network from random weights on the same samples, and prints both results."""
    scratch = cfg.copy()
    scratch.model.weights = None
    # the same settings, for what was measured once would come out otherwise now
    scratch.auto = scratch.lr_find = False
    scratch.paths.run = f"{cfg.paths.run}/scratch"
    scratch.resume = cfg.resume and scratch.paths.run
    log.info("\nThe same network from random weights, on the same samples:")
    reference = train(scratch)
    if rank_zero_only.rank == 0:
        print(f"\ntransfer against scratch, {transfer.num_train} labelled samples:")
        for name, value in transfer.metrics.items():
            print(f"  {name}: {value:.4f} against {reference.metrics[name]:.4f}")


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
    OmegaConf.update(rehearsal, "trainer.enable_checkpointing", False, force_add=True)
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


def resume_point(cfg: DictConfig) -> Path | None:
    """The checkpoint to go on from; None for a new run, or one that was interrupted before it saved anything."""
    if cfg.resume is None:
        return None
    run = Path(cfg.paths.run)
    named = Path(cfg.resume).expanduser().resolve()
    point = named if named.is_file() else checkpoint.newest_valid(run)
    if point is None:
        log.warning("%s holds no checkpoint yet: it starts from the beginning", _short(run))
    else:
        log.info("going on from %s", _short(point))
    return point


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


def build_task(cfg: DictConfig, data: DataModule, point: Path | None = None) -> ClassificationTask:
    """Backbone and head for the data's classes, or the checkpoint's; tells the data what the inputs look like."""
    if point:
        task, _ = checkpoint.load_task(point)
        task.objective.temperature = 1.0  # it fitted the weights as they were, and is not handed on
        if task.classes != data.classes:
            raise UsageError(f"{point} knows the classes {task.classes}, but the data have {data.classes}")
    else:
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


def refuse_occupied(run: Path, cfg: DictConfig) -> None:
    """Raises a UsageError where a new run would be written over another one."""
    if cfg.resume is None and not cfg.trainer.fast_dev_run and any(run.glob("checkpoints/*.ckpt")):
        raise UsageError(
            f"there is a run in {run} already: resume={run} goes on with it; a new one needs a folder of its own "
            "(hydra.run.dir, and with torchrun another --rdzv-id)"
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


@rank_zero_only
def show_data(data: DataModule) -> None:
    """Prints how many samples of which class are where."""
    counts = {split: data.class_counts(split) for split in SPLITS if data.num_samples[split]}
    Console(stderr=True).print(data_table(data.classes, counts))


@rank_zero_only
def write_facts(run: Path, cfg: DictConfig, task: ClassificationTask) -> None:
    """Writes the composed config (only `paths` resolved: the rest goes on from it) and the class map of the run."""
    written = cfg.copy()
    written.paths = OmegaConf.to_container(cfg.paths, resolve=True)
    written.resume = None
    with replacing(run / resume.CONFIG) as stream:
        OmegaConf.save(written, stream)
    class_map = {name: index for index, name in enumerate(task.classes)}
    with replacing(run / "classes.json") as stream:
        stream.write(json.dumps(class_map, indent=1, ensure_ascii=False) + "\n")


def summarise(cfg: DictConfig, trainer: pl.Trainer, task: ClassificationTask, data: DataModule) -> Result:
    """The best epoch's validation metrics and, once, the test metrics of those weights."""
    watching = [c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None) == cfg.monitor]
    path = watching[0].best_model_path if watching and not trainer.fast_dev_run else ""
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    for blend in (callback for callback in trainer.callbacks if isinstance(callback, Blend) and path):
        blend.keep_the_best(trainer, Path(path), cfg.monitor, cfg.mode)
    if path:  # callback_metrics hold the last epoch, not the best
        metrics = checkpoint.read(Path(path))["metrics"]
        log.info("best %s %.4f: %s", cfg.monitor, metrics[cfg.monitor], _short(Path(path)))
    elif not trainer.fast_dev_run:
        why = "nothing was validated" if watching else f"no checkpoint watches {cfg.monitor}"
        log.warning("%s: these are the last epoch's weights", why)
    score = metrics.get(cfg.monitor)
    metrics = {name: value for name, value in metrics.items() if name.startswith("val/")}
    if cfg.test and data.num_samples["test"]:
        (tested,) = trainer.test(task, datamodule=data, ckpt_path=path or None, verbose=False)
        metrics |= tested
    return Result(score, metrics, data.num_samples["train"], sum(p.numel() for p in task.parameters()))


@rank_zero_only
def write_result(run: Path, result: Result, seconds: float) -> None:
    """Prints and writes the metrics of the run."""
    facts = {"score": result.score, "seconds": round(seconds, 1), "parameters": result.parameters}
    content: dict[str, Any] = facts | result.metrics
    with replacing(run / "metrics.json") as stream:
        stream.write(json.dumps(content, indent=1) + "\n")
    for name, value in result.metrics.items():
        print(f"{name}: {value:.4f}")
    log.info("%.0f s; evaluate again with: python src/evaluate.py run=%s", seconds, _short(run))


def _short(path: Path) -> str:
    """Relative to where the person is, when it lies below."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
