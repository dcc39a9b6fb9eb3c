"""One training run: settle the config, train, test, and write the results."""

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from headstart.callbacks.forward_passes import passes_of
from headstart.callbacks.logit_collector import LogitCollector
from headstart.cli.conf_files import typed_name
from headstart.cli.overrides import command_line_overrides
from headstart.cli.run import terminated_as_interrupted
from headstart.cli.terminal import show
from headstart.data.module import SPLITS, DataModule
from headstart.display.tables import data_table, print_metrics, results_table
from headstart.errors import UsageError, counted
from headstart.evaluation.thresholds import choose_thresholds
from headstart.files import as_json, relative_to_cwd, replacing
from headstart.runs.directory import Run
from headstart.runs.hyperparameters import key_of
from headstart.runs.kept import Kept, kept_epoch
from headstart.tasks import checkpoint
from headstart.tasks.base import Task
from headstart.tasks.classification import ClassificationTask
from headstart.training.build import build_task, build_trainer, editable_copy
from headstart.training.loggers import finish_wandb
from headstart.training.restart import connect_again
from headstart.training.settle import settle

log = logging.getLogger(__name__)
SMALL_NETWORK = "tiny_resnet"
"""The default of conf/train.yaml, which suits only the data of the demonstration."""
PHOTOS = ("image_folder", "table", "cats_dogs", "cifar10")
"""Files of conf/data with pictures for which it is too small."""
SAMPLES_LOADED = 2000  # training samples that are loaded to describe the inputs


@dataclass
class Result:
    """The result of a run.

    Attributes:
        cfg: the config that was used, complete.
        score: the best monitored score.
        metrics: validation and test metrics of the best model.
        num_train: number of training samples.
        parameters: number of parameters of the model.
        passes: number of samples that went through the network before the test.
        kept: which of its models the run keeps; None if it writes no checkpoint of the best.
    """

    cfg: DictConfig
    score: float | None
    metrics: dict[str, float]
    num_train: int
    parameters: int
    passes: int
    kept: Kept | None = None


def run(cfg: DictConfig) -> Result:
    """Trains as the config says and, with `compare_scratch=true`, the same network from random weights."""
    try:
        # while it trains, `callbacks/interruption.py` finishes the step first; everywhere else SIGTERM ends at once
        with terminated_as_interrupted():
            show_recipe(cfg)
            result = train(cfg)
            if cfg.compare_scratch and result.cfg.model.get("weights") is not None:
                train_from_scratch(result)
    except SystemExit:  # from Ctrl-C or SIGTERM
        if not cfg.trainer.fast_dev_run and Run(Path(cfg.paths.run)).exists:
            log.warning("interrupted; to continue: python src/train.py resume=%s", relative_to_cwd(to_continue(cfg)))
        raise
    return result


def to_continue(cfg: DictConfig) -> Path:
    """What `resume=` names to continue: the run, or the sweep that it is a job of."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    in_sweep = hydra is not None and hydra.mode is RunMode.MULTIRUN
    return Path(hydra.sweep.dir if in_sweep else cfg.paths.run)


def train(given: DictConfig) -> Result:
    """Trains and tests once; all files go to `paths.run`."""
    started = time.monotonic()
    run = Run(Path(given.paths.run))
    refuse_occupied(run, given)
    run.folder.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(given.seed, workers=True, verbose=False)
    settled = settle(given)
    cfg, data, resume_from = settled.cfg, settled.data, settled.checkpoint
    trainer = build_trainer(cfg, resume_from)
    connect_again(trainer)
    show_data(data)
    task = build_task(cfg, data, resume_from)
    show_inputs(data, task)
    if resume_from:  # only once training starts: if the resumed run is refused, its old config stays
        trainer.callbacks.insert(1, LambdaCallback(on_train_start=lambda *_: write_config_and_classes(run, cfg, task)))
    else:
        write_config_and_classes(run, cfg, task)
    trainer.fit(task, data, ckpt_path=resume_from, weights_only=True)
    collector = LogitCollector()
    if cfg.report:
        trainer.callbacks.append(collector)
    result = summarise(cfg, trainer, task, data)
    write_result(run, result, time.monotonic() - started)
    if cfg.report and not cfg.trainer.fast_dev_run:
        # imported here, because a run without a report should not wait for matplotlib
        from headstart.report.build import report_on

        report_on(cfg, task, data, trainer, collector, result.metrics)
    finish_wandb()
    return result


def train_from_scratch(transfer: Result) -> None:
    """Trains the same network from random weights on the same samples, and prints both results."""
    scratch = editable_copy(transfer.cfg)
    scratch.model.weights = None
    # the settings are chosen already; for random weights others would be chosen
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
    """Prints experiment and strategy of a new run in one line, and warns of a small network that was not named."""
    if cfg.resume is not None:
        return
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    strategy = typed_name("finetuning", cfg.finetuning._target_, choices)
    named = choices.get("experiment")
    # experiment=auto only sets finetuning=auto, so naming it adds nothing
    recipe = f"experiment={named}, " if named and named != "auto" else ""
    log.info("recipe: %sfinetuning=%s", recipe, strategy)
    typed = set(map(key_of, command_line_overrides()))
    is_default = named in (None, "auto") and not {"model", "model.weights"} & typed
    if choices.get("data") in PHOTOS and choices.get("model") == SMALL_NETWORK and is_default:
        log.warning(
            "model=%s, the default, is a small network for demonstrations: it shrinks pictures to %d x %d pixels. For "
            "photos type model=resnet50, for example",
            *(SMALL_NETWORK, cfg.model.image_size, cfg.model.image_size),
        )


def refuse_occupied(run: Run, cfg: DictConfig) -> None:
    """Raises a UsageError if a new run would overwrite another one."""
    if cfg.resume is None and not cfg.trainer.fast_dev_run and run.checkpoints:
        raise UsageError(
            f"there is a run in {run.folder} already: resume={run.folder} continues it; for a new run give another "
            "folder (hydra.run.dir, and with torchrun another --rdzv-id)"
        )


@rank_zero_only
def show_data(data: DataModule) -> None:
    """Prints the number of samples of each class in each split, or of each split if there are no classes."""
    sizes = ", ".join(f"{n:,} {split}" for split, n in data.num_samples.items() if n)
    if not data.classes:
        log.info("samples without labels: %s", sizes)
        return
    if data.samples.numbers:
        values = data.targets("train", range(data.num_samples["train"])).T
        log.info("samples with numbers: %s; in train: %s", sizes, ", ".join(map(_described, data.classes, values)))
        return
    counts = {split: data.class_counts(split) for split in SPLITS if data.num_samples[split]}
    show(data_table(data.classes, counts, data.num_samples))


def _described(name: str, values: Tensor) -> str:
    return f"{name} from {values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}"


@rank_zero_only
def show_inputs(data: DataModule, task: Task) -> None:
    """Prints what the preprocessing says about some training samples."""
    train = data.splits["train"]
    chosen = train[:: max(len(train) // SAMPLES_LOADED, 1)]
    if sentence := task.backbone.preprocess.summary_of(map(data.samples.load, chosen)):
        log.info(sentence)


@rank_zero_only
def write_config_and_classes(run: Run, cfg: DictConfig, task: Task) -> None:
    """Writes the config (only `paths` is resolved, so that other interpolations still work) and the class map."""
    written = editable_copy(cfg)
    written.paths = OmegaConf.to_container(cfg.paths, resolve=True)
    written.resume = None
    with replacing(run.config_file) as stream:
        OmegaConf.save(written, stream)
    class_map = {name: index for index, name in enumerate(task.classes)}
    with replacing(run.classes_file) as stream:
        stream.write(as_json(class_map))


def summarise(cfg: DictConfig, trainer: pl.Trainer, task: Task, data: DataModule) -> Result:
    """The validation metrics of the best epoch, and the test metrics of its weights."""
    validates = bool(trainer.limit_val_batches)
    watched = cfg.monitor if validates else None
    kept = [callback for callback in trainer.checkpoint_callbacks if getattr(callback, "monitor", "") == watched]
    best = next((path for each in kept if (path := getattr(each, "best_model_path", ""))), "")
    path = "" if trainer.fast_dev_run else best
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    model = None
    for callback in (each for each in trainer.callbacks if path and validates and hasattr(each, "after_fit")):
        # our own hook, not Lightning's; it may validate
        model = callback.after_fit(trainer, Path(path), cfg.monitor) or model
    if path:  # callback_metrics hold the last epoch, not the best
        content = checkpoint.read(Path(path))
        metrics = content["metrics"]
        why = f"the best {cfg.monitor}" if validates else "the last one, because nothing was validated"
        model = model or kept_epoch(content, why)
        log.info("kept: %s", model.sentence)
        score_of_it = f"{cfg.monitor} {metrics[cfg.monitor]:.4f}: " if validates else ""
        log.info("%s%s", score_of_it, relative_to_cwd(Path(path)))
    elif not trainer.fast_dev_run:
        why = "nothing was validated" if kept else f"no checkpoint watches {cfg.monitor}"
        log.warning("%s: the results are of the last epoch's weights", why)
    score = metrics.get(cfg.monitor)
    metrics = {name: value for name, value in metrics.items() if name.startswith("val/")}
    passes = passes_of(trainer)
    for callback in trainer.callbacks:
        if hasattr(callback, "on_kept"):  # our own hook: the model and its validation metrics are known now
            callback.on_kept(trainer, model, metrics)
    if path and data.num_samples["val"] and isinstance(task, ClassificationTask) and task.objective.multi_label:
        choose_thresholds(trainer, task, data, Path(path))
    if cfg.test and data.num_samples["test"]:
        log.info("testing %s on %s", "it" if path else "the model", counted(data.num_samples["test"], "sample"))
        (tested,) = trainer.test(task, datamodule=data, ckpt_path=path or None, verbose=False)
        metrics |= tested
    parameters = sum(parameter.numel() for parameter in task.parameters())
    return Result(cfg, score, metrics, data.num_samples["train"], parameters, passes, model)


@rank_zero_only
def write_result(run: Run, result: Result, seconds: float) -> None:
    """Prints and writes the metrics of the run."""
    cost = {"seconds": round(seconds, 1), "parameters": result.parameters, "passes": result.passes}
    kept = result.kept
    if kept and run.has_ended and run.kept and run.kept.model == kept.model:
        kept = run.kept  # a run that is resumed after its end compares nothing again
    kept = {"kept": kept.as_plain_data()} if kept else {}
    content: dict[str, Any] = {"score": result.score} | cost | result.metrics | kept
    with replacing(run.metrics_file) as stream:
        stream.write(as_json(content))
    if sys.stdout.isatty():
        show(results_table(result.metrics), to_stdout=True)
    else:
        print_metrics(result.metrics)
    task = get_class(result.cfg.task._target_)
    log.info("%.0f s; %s", seconds, task.afterwards.format(run=relative_to_cwd(run.folder)))
