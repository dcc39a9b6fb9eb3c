"""One training run: data, model, trainer, fit, test, and what is kept of it."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.utilities import rank_zero_only

from headstart.callbacks.forward_passes import passes_of
from headstart.callbacks.logit_collector import LogitCollector
from headstart.data.module import SPLITS, DataModule
from headstart.display.tables import data_table, show
from headstart.errors import UsageError
from headstart.files import as_json, relative_to_cwd, replacing
from headstart.runs.directory import Run
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask
from headstart.training.build import build_task, build_trainer, editable_copy
from headstart.training.loggers import finish_wandb
from headstart.training.settle import settle

log = logging.getLogger(__name__)


@dataclass
class Result:
    """What a run gives.

    Attributes:
        cfg: the settled config that it used.
        score: the best monitored score.
        metrics: of the model that was kept.
        num_train: training samples.
        parameters: of the model.
        passes: samples that went through the network, without those of the test.
    """

    cfg: DictConfig
    score: float | None
    metrics: dict[str, float]
    num_train: int
    parameters: int
    passes: int


def run(cfg: DictConfig) -> Result:
    """Trains as the config says and, with `compare_scratch=true`, the same network from random weights."""
    try:
        show_recipe(cfg)
        result = train(cfg)
        if cfg.compare_scratch and result.cfg.model.get("weights") is not None:
            train_from_scratch(result)
    except SystemExit:  # what Ctrl-C and SIGTERM become
        if not cfg.trainer.fast_dev_run:
            log.warning("interrupted; to go on: python src/train.py resume=%s", relative_to_cwd(Path(cfg.paths.run)))
        raise
    return result


def train(given: DictConfig) -> Result:
    """Trains and tests once; everything that remains is under `paths.run`."""
    started = time.monotonic()
    run = Path(given.paths.run)
    refuse_occupied(run, given)
    run.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(given.seed, workers=True, verbose=False)
    settled = settle(given)
    cfg, data, point = settled.cfg, settled.data, settled.checkpoint
    trainer = build_trainer(cfg, point)
    show_data(data)
    task = build_task(cfg, data, point)
    if point:  # not before the checkpoint is found to fit: a refused change must not stay
        trainer.callbacks.insert(1, LambdaCallback(on_train_start=lambda *_: write_facts(run, cfg, task)))
    else:
        write_facts(run, cfg, task)
    trainer.fit(task, data, ckpt_path=point, weights_only=True)
    collector = LogitCollector()
    if cfg.report:
        trainer.callbacks.append(collector)
    result = summarise(cfg, trainer, task, data)
    write_result(run, result, time.monotonic() - started)
    if cfg.report and not cfg.trainer.fast_dev_run:
        # imported here: a run that draws nothing does not wait for matplotlib
        from headstart.report.build import report_on

        report_on(cfg, task, data, trainer, collector, result.metrics)
    finish_wandb()
    return result


def train_from_scratch(transfer: Result) -> None:
    """Trains the same network from random weights on the same samples, and prints both results."""
    scratch = editable_copy(transfer.cfg)
    scratch.model.weights = None
    # the same settings: they are settled, and would come out otherwise now
    scratch.auto = scratch.lr_find = False
    scratch.paths.run = str(Run(Path(transfer.cfg.paths.run)).scratch.folder)
    scratch.resume = scratch.resume and scratch.paths.run
    log.info("\nThe same network from random weights, on the same samples:")
    reference = train(scratch)
    if rank_zero_only.rank == 0:
        print(f"\ntransfer against scratch, {transfer.num_train} labelled samples:")
        for name, value in transfer.metrics.items():
            print(f"  {name}: {value:.4f} against {reference.metrics[name]:.4f}")


@rank_zero_only
def show_recipe(cfg: DictConfig) -> None:
    """Prints in one line which recipe a new run follows."""
    if cfg.resume is not None:
        return
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    strategy = chosen.get("finetuning") or cfg.finetuning._target_.rpartition(".")[2]
    named = chosen.get("experiment")
    # the default recipe is its strategy: whoever names another strategy follows no recipe
    recipe = f"experiment={named}, " if named and named != "auto" else ""
    log.info("recipe: %sfinetuning=%s", recipe, strategy)


def refuse_occupied(run: Path, cfg: DictConfig) -> None:
    """Raises a UsageError where a new run would be written over another one."""
    if cfg.resume is None and not cfg.trainer.fast_dev_run and Run(run).checkpoints:
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
    written = editable_copy(cfg)
    written.paths = OmegaConf.to_container(cfg.paths, resolve=True)
    written.resume = None
    with replacing(Run(run).config_file) as stream:
        OmegaConf.save(written, stream)
    class_map = {name: index for index, name in enumerate(task.classes)}
    with replacing(Run(run).classes_file) as stream:
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
        log.info("best %s %.4f: %s", cfg.monitor, metrics[cfg.monitor], relative_to_cwd(Path(path)))
    elif not trainer.fast_dev_run:
        why = "nothing was validated" if watching else f"no checkpoint watches {cfg.monitor}"
        log.warning("%s: these are the last epoch's weights", why)
    score = metrics.get(cfg.monitor)
    metrics = {name: value for name, value in metrics.items() if name.startswith("val/")}
    passes = passes_of(trainer)
    if cfg.test and data.num_samples["test"]:
        (tested,) = trainer.test(task, datamodule=data, ckpt_path=path or None, verbose=False)
        metrics |= tested
    return Result(cfg, score, metrics, data.num_samples["train"], sum(p.numel() for p in task.parameters()), passes)


@rank_zero_only
def write_result(run: Path, result: Result, seconds: float) -> None:
    """Prints and writes the metrics of the run."""
    cost = {"seconds": round(seconds, 1), "parameters": result.parameters, "passes": result.passes}
    content: dict[str, Any] = {"score": result.score} | cost | result.metrics
    with replacing(Run(run).metrics_file) as stream:
        stream.write(as_json(content))
    for name, value in result.metrics.items():
        print(f"{name}: {value:.4f}")
    log.info("%.0f s; evaluate again with: python src/evaluate.py run=%s", seconds, relative_to_cwd(run))
