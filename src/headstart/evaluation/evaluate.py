"""Evaluates a trained run on one split; needs only its run directory or checkpoint."""

import logging
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from headstart.backbones.speed import precision_on_this_machine
from headstart.callbacks.logit_collector import LogitCollector
from headstart.callbacks.progress import ProgressBar
from headstart.cli.check import check_config
from headstart.cli.schemas import AS_IN_RUN, EvaluateConfig
from headstart.cli.terminal import show
from headstart.data.module import DataModule
from headstart.data.trained_run import data_config, known_split, load_data
from headstart.display.tables import mistakes_table
from headstart.errors import UsageError, counted
from headstart.evaluation import inspection
from headstart.evaluation.evaluation_files import Evaluation, clear, metrics_table, write_tables_and_figures
from headstart.evaluation.inspection import Inspection, contents_of
from headstart.files import Column, as_json, relative_to_cwd, replacing
from headstart.metrics.calibration import calibration_error, fit_temperature
from headstart.metrics.intervals import bootstrap_intervals, resampled_metric
from headstart.metrics.thresholds import rescaled
from headstart.runs.directory import Run
from headstart.runs.evaluations import read_evaluation, weights_id
from headstart.runs.places import check_links
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.objective import CALIBRATION_BINS, AnyPredictions

log = logging.getLogger(__name__)
LISTED_MISTAKES = 5
"""The worst mistakes that the terminal shows, if the samples fit into a table."""


def evaluate(cfg: DictConfig, path: Path) -> dict[str, float]:
    """The metrics `<split>/<name>` of a checkpoint on one split.

    Tables and figures go into a folder of the run (`output_folder`). The metrics also go into a file of the run, unless
    `data.root` or `test_time` asks for something else than the run's own test.

    Args:
        cfg: of `conf/evaluate.yaml`.
        path: the checkpoint.
    """
    inspection.check(cfg)
    run = Run.of(path)
    if run is not None:
        check_links(run.folder)
    if cfg.data.root is None and known_split(run) is None:
        log.warning(
            "there is no %s: the data are split again, so training samples of the model may be in %s",
            *(Run(path.parent.parent).split_file, cfg.split),
        )
    task, trained = checkpoint.load_task(path)
    if cfg.test_time != AS_IN_RUN:
        task.test_time = instantiate(cfg.test_time)
    trained = config_for_evaluation(trained, cfg, run)
    check_config(trained)
    data = load_data(trained.data, task.classes, task.backbone.preprocess, cfg.split, run)
    inspection.check_data(cfg, task, data)
    collector = LogitCollector(features=bool(cfg.embedding or cfg.neighbours))
    trainer = build_trainer(trained, collector)
    error = calibrate(path, task, data, trainer, collector) if cfg.calibrate else None
    log.info("evaluating %s of %s", counted(data.num_samples[cfg.split], "sample"), cfg.split)
    tested = test(task, data, cfg.split, trainer)
    if error is not None and run and path == run.best.resolve():
        known = {f"{cfg.split}/ece": tested["ece"]} if "ece" in tested else {}
        run.replace_calibration_errors({"val/ece": error} | known)
    evaluation = write_evaluation(cfg, path, trained, task, data, trainer, collector, tested)
    if sys.stdout.isatty():  # elsewhere the metrics are printed as lines that other programs can read
        show(metrics_table(f"{cfg.split}, {counted(len(evaluation.predictions), 'sample')}", evaluation), True)
    metrics = {f"{cfg.split}/{name}": value for name, value in tested.items()}
    if run and cfg.data.root is None and cfg.test_time == AS_IN_RUN:
        with replacing(run.evaluated_metrics_file(cfg.split, path.stem)) as stream:
            stream.write(as_json(metrics))
    return metrics


def write_evaluation(
    cfg: DictConfig, path: Path, trained: DictConfig, task: ClassificationTask, data: DataModule, trainer: pl.Trainer,
    collector: LogitCollector, tested: dict[str, float],
) -> Evaluation:  # fmt: skip
    """Writes the results of a test that was just made: intervals, tables, figures, and everything that `cfg` asks for.

    It returns the metrics with their intervals.

    Args:
        cfg: of `conf/evaluate.yaml`.
        path: the checkpoint whose weights were tested.
        trained: the config of the run.
        task: the tested model.
        data: its `cfg.split` was tested.
        trainer: has tested.
        collector: the logits of the test.
        tested: the metrics by name, without a prefix.
    """
    folder = output_folder(path, cfg)
    evaluation = with_intervals(task, data, cfg.split, collector.logits, tested)
    evaluation.facts = {
        "checkpoint": path.name,
        "weights": weights_id(path),
        "split": cfg.split,
        "data_root": _data_root(cfg),
        "samples": len(evaluation.predictions),
        "test_time": task.test_time is not None,
        "temperature": task.objective.temperature,
        "thresholds": task.objective.thresholds,
    }
    clear(folder)
    mistakes = task.objective.worst(evaluation.predictions)
    contents = contents_of(data, cfg.split, [mistake.position for mistake in mistakes])
    write_tables_and_figures(folder, evaluation, contents)
    if contents and cfg.worst:
        listed = mistakes[:LISTED_MISTAKES]
        title = f"worst {task.objective.worst_name}, {len(listed)} of {len(mistakes):,}"
        show(mistakes_table(listed, Column(contents.name, contents.values[: len(listed)]), title))
    features = collector.features if collector.wants_features else None
    Inspection(cfg, trained, task, data, cfg.split, trainer, evaluation.predictions, features, folder).write()
    log.info("tables and figures: %s", relative_to_cwd(folder))
    return evaluation


def defaults(path: Path, split: str) -> DictConfig:
    """The defaults of `conf/evaluate.yaml` for a checkpoint and a split."""
    return OmegaConf.structured(EvaluateConfig(run=str(path), split=split, logs=""))


def config_for_evaluation(trained: DictConfig, cfg: DictConfig, run: Run | None) -> DictConfig:
    """The config of the run with the changes for an evaluation: one process, all samples, and the settings of `cfg`.

    Args:
        trained: the config of the run.
        cfg: of `conf/evaluate.yaml`.
        run: the run; None for a checkpoint outside a run directory.
    """
    config = trained.copy()
    # one process, because a distributed sampler would count some samples twice; no limit, to use the whole split
    config.trainer.update({"devices": 1, "strategy": "auto", "limit_test_batches": None, "fast_dev_run": False})
    if config.trainer.get("profiler") is not None:  # it would write where the config of the run says
        config.trainer.profiler = None
    config.data = data_config(trained, cfg.data, run)
    config.trainer.update({key: value for key, value in cfg.trainer.items() if value is not None})
    config.trainer.precision = precision_on_this_machine(config.trainer.precision, config.trainer.accelerator)
    return config


def build_trainer(trained: DictConfig, collector: LogitCollector) -> pl.Trainer:
    """A trainer for tests, whose logits `collector` keeps; it reads what the run has cached of frozen layers."""
    callbacks: list[pl.Callback] = [collector]
    if trained.trainer.enable_progress_bar:
        callbacks.insert(0, ProgressBar())
    if trained.cache and trained.cache.activations:
        callbacks += [instantiate(trained.finetuning), instantiate(trained.cache.activations)]
    return instantiate(trained.trainer, callbacks=callbacks, logger=False, enable_checkpointing=False)


def test(task: ClassificationTask, data: DataModule, split: str, trainer: pl.Trainer) -> dict[str, float]:
    """The metrics of a split by name, without a prefix, computed by the same code as at the end of training."""
    if trainer.progress_bar_callback is not None:
        trainer.progress_bar_callback.tested_split = split
    (tested,) = trainer.test(task, dataloaders=data.loader(split), verbose=False)
    return {name.removeprefix("test/"): value for name, value in tested.items()}


def calibrate(
    path: Path, task: ClassificationTask, data: DataModule, trainer: pl.Trainer, collector: LogitCollector
) -> float | None:
    """Fits the temperature on val, never on the tested split, and writes it into the checkpoint.

    Returns:
        the calibration error on val after that; None if no temperature fits.
    """
    if not data.num_samples["val"]:
        raise UsageError("calibrate=true fits the temperature on val, which this run does not have: leave it out")
    log.info("calibrating: the temperature is fitted on %s of val", counted(data.num_samples["val"], "sample"))
    test(task, data, "val", trainer)
    targets = data.targets("val", range(data.num_samples["val"]))
    temperature = fit_temperature(collector.logits, targets)
    if temperature is None:
        log.warning("no temperature fits val (does the model make no mistake there?): the temperature is not changed")
        return None
    errors, before = [], task.objective.temperature
    for candidate in (1.0, temperature):
        task.objective.temperature = candidate
        predictions = predict(task, data, "val", collector.logits)
        errors.append(calibration_error(predictions, CALIBRATION_BINS))
    if task.objective.thresholds is not None:
        task.objective.thresholds = rescaled(task.objective.thresholds, before / temperature)
    checkpoint.keep_temperature(path, temperature, errors[1], task.objective.thresholds)
    run = Run.of(path)
    if run and (exports := run.exports(path.stem)):
        log.warning(
            "made before this calibration, so export again: %s",
            ", ".join(str(relative_to_cwd(each)) for each in exports),
        )
    log.info("temperature %.3f, written into %s; val/ece %.4f before, %.4f after", temperature, path.name, *errors)
    return errors[1]


def predict(task: ClassificationTask, data: DataModule, split: str, logits: Tensor) -> AnyPredictions:
    """The predictions that these logits give for the samples of a split."""
    targets = data.targets(split, range(len(logits)))
    return task.objective.predictions(inspection.paths_of(data, split), task.classes, targets, logits)


def with_intervals(
    task: ClassificationTask, data: DataModule, split: str, logits: Tensor, metrics: dict[str, float]
) -> Evaluation:
    """The metrics with their 95 % intervals, and the predictions with and without the temperature."""
    objective = task.objective.cpu()
    predictions, uncalibrated, temperature = predict(task, data, split, logits), None, objective.temperature
    if temperature != 1:
        objective.temperature = 1.0
        uncalibrated = predict(task, data, split, logits)
        objective.temperature = temperature
    losses, weights = sample_losses(objective, logits, predictions.targets)
    known = objective.statistics(predictions, losses, weights)
    others = {name: metric for name, metric in objective.evaluation_metrics().items() if name not in known}
    if others:
        answers = objective.probabilities(logits)
        known |= {name: resampled_metric(each, answers, predictions.targets) for name, each in others.items()}
    limits = bootstrap_intervals({name: known[name] for name in metrics}, len(predictions), data.seed)
    return Evaluation({}, metrics, limits, predictions, uncalibrated, CALIBRATION_BINS)


def sample_losses(objective: nn.Module, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each sample, and its weight in the mean, both `(samples,)`."""
    each = list(zip(logits.split(1), targets.split(1), strict=True))
    with torch.no_grad():
        losses = torch.stack([objective.loss(row, target) for row, target in each])
    return losses, torch.tensor([float(objective.batch_weight(target)) for _, target in each])


def output_folder(path: Path, cfg: DictConfig) -> Path:
    """The folder of an evaluation, in the run, or beside a checkpoint outside a run directory.

    If an evaluation of another folder with the same name is there (`data_root` in its numbers), a number is added.
    """
    root = _data_root(cfg)
    run = Run.of(path) or Run(path.parent)
    folder = wanted = run.evaluation_folder(cfg.split, path.stem, root, _test_time_name(cfg))
    number = 1
    while root is not None and (read_evaluation(folder) or {}).get("data_root") not in (None, root):
        number += 1
        folder = wanted.with_name(f"{wanted.name}_{number}")
    return folder


def _test_time_name(cfg: DictConfig) -> str | None:
    """The name of the test-time augmentation that `cfg` asks for, or `plain` if it is off; None: as in the run."""
    if cfg.test_time == AS_IN_RUN:
        return None
    return "plain" if cfg.test_time is None else cfg.test_time._target_.rpartition(".")[2]


def _data_root(cfg: DictConfig) -> str | None:
    """The absolute path of other data; None for the data of the run."""
    return None if cfg.data.root is None else str(Path(cfg.data.root).expanduser().resolve())
