"""One training run: data, model, trainer, fit, test, and what is kept of it."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.utilities import rank_zero_only

from headstart.callbacks.collection import Collection
from headstart.callbacks.passes import passes_of
from headstart.data.module import SPLITS, DataModule
from headstart.display.tables import data_table, show
from headstart.errors import UsageError
from headstart.files import as_json, replacing, shown
from headstart.runs import resume
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask
from headstart.training import auto
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.loggers import finish_wandb
from headstart.training.lr_find import find_rate

log = logging.getLogger(__name__)


@dataclass
class Result:
    """What a run gives.

    Attributes:
        score: the best monitored one.
        metrics: of that model.
        num_train: how many samples it learned from.
        parameters: how many the model has.
        passes: pictures that went through the network, but for the test.
    """

    score: float | None
    metrics: dict[str, float]
    num_train: int
    parameters: int
    passes: int


def run(cfg: DictConfig) -> Result:
    """Trains as the config says and, where it asks for that, the same network from random weights."""
    try:
        result = train(cfg)
        if cfg.compare_scratch and cfg.model.get("weights") is not None:
            train_from_scratch(cfg, result)
    except SystemExit:  # what Ctrl-C and SIGTERM become
        if not cfg.trainer.fast_dev_run:
            log.warning("interrupted; to go on: python src/train.py resume=%s", shown(Path(cfg.paths.run)))
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
    finish_wandb()
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


def resume_point(cfg: DictConfig) -> Path | None:
    """The checkpoint to go on from; None for a new run, or one that was interrupted before it saved anything."""
    if cfg.resume is None:
        return None
    run = Path(cfg.paths.run)
    named = Path(cfg.resume).expanduser().resolve()
    point = named if named.is_file() else checkpoint.newest_valid(run)
    if point is None:
        log.warning("%s holds no checkpoint yet: it starts from the beginning", shown(run))
    else:
        log.info("going on from %s", shown(point))
    return point


def anchor(cfg: DictConfig) -> None:
    """Makes the paths a person typed absolute, once they exist, so that the run can be used from any folder."""
    for part, key in (("data", "root"), ("model", "weights")):
        given = cfg[part].get(key)
        if given is not None and Path(given).expanduser().exists():
            cfg[part][key] = str(Path(given).expanduser().resolve())


def refuse_occupied(run: Path, cfg: DictConfig) -> None:
    """Raises a UsageError where a new run would be written over another one."""
    if cfg.resume is None and not cfg.trainer.fast_dev_run and any(run.glob("checkpoints/*.ckpt")):
        raise UsageError(
            f"there is a run in {run} already: resume={run} goes on with it; a new one needs a folder of its own "
            "(hydra.run.dir, and with torchrun another --rdzv-id)"
        )


@rank_zero_only
def show_data(data: DataModule) -> None:
    """Prints how many samples of which class are where."""
    counts = {split: data.class_counts(split) for split in SPLITS if data.num_samples[split]}
    show(data_table(data.classes, counts))


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
        stream.write(as_json(class_map))


def summarise(cfg: DictConfig, trainer: pl.Trainer, task: ClassificationTask, data: DataModule) -> Result:
    """The best epoch's validation metrics and, once, the test metrics of those weights."""
    watching = [c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None) == cfg.monitor]
    path = watching[0].best_model_path if watching and not trainer.fast_dev_run else ""
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    for callback in (each for each in trainer.callbacks if path and hasattr(each, "after_fit")):
        callback.after_fit(trainer, Path(path), cfg.monitor)  # a hook that Lightning has not: it may validate
    if path:  # callback_metrics hold the last epoch, not the best
        metrics = checkpoint.read(Path(path))["metrics"]
        log.info("best %s %.4f: %s", cfg.monitor, metrics[cfg.monitor], shown(Path(path)))
    elif not trainer.fast_dev_run:
        why = "nothing was validated" if watching else f"no checkpoint watches {cfg.monitor}"
        log.warning("%s: these are the last epoch's weights", why)
    score = metrics.get(cfg.monitor)
    metrics = {name: value for name, value in metrics.items() if name.startswith("val/")}
    passes = passes_of(trainer)
    if cfg.test and data.num_samples["test"]:
        (tested,) = trainer.test(task, datamodule=data, ckpt_path=path or None, verbose=False)
        metrics |= tested
    return Result(score, metrics, data.num_samples["train"], sum(p.numel() for p in task.parameters()), passes)


@rank_zero_only
def write_result(run: Path, result: Result, seconds: float) -> None:
    """Prints and writes the metrics of the run."""
    cost = {"seconds": round(seconds, 1), "parameters": result.parameters, "passes": result.passes}
    content: dict[str, Any] = {"score": result.score} | cost | result.metrics
    with replacing(run / "metrics.json") as stream:
        stream.write(as_json(content))
    for name, value in result.metrics.items():
        print(f"{name}: {value:.4f}")
    log.info("%.0f s; evaluate again with: python src/evaluate.py run=%s", seconds, shown(run))
