"""A trained run on a split, from nothing but its directory."""

import logging
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from headstart.backbones.speed import choose_precision
from headstart.callbacks.collection import Collection
from headstart.callbacks.progress import ProgressBar
from headstart.cli.check import check_config
from headstart.cli.schemas import EvaluateConfig
from headstart.data.module import DataModule
from headstart.data.trained_run import data_config, load_data, run_of
from headstart.display.tables import show
from headstart.errors import UsageError
from headstart.evaluation import inspection
from headstart.evaluation.evaluation_files import Evaluation, clear, metrics_table, read_evaluation, write_evaluation
from headstart.evaluation.inspection import Inspection
from headstart.files import as_json, replacing
from headstart.inputs.images.mirror import with_mirror_image
from headstart.metrics.calibration import calibration_error, fit_temperature
from headstart.metrics.intervals import bootstrap_intervals, resampled_metric, statistics_of
from headstart.metrics.predictions import Predictions
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.objectives import CALIBRATION_BINS

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, path: Path) -> dict[str, float]:
    """The metrics `<split>/<name>` of a run's checkpoint on one split.

    Everything else goes into a folder of the run (`output_folder`), and the metrics also into `metrics_<split>.json`
    beside it (`metrics_<split>_<checkpoint>.json` for another than the best), unless `data.root` or `test_time_flip`
    asks for something else than the run's own test.
    """
    inspection.check(cfg)
    home = run_of(path)
    if home is None and cfg.data.root is None:
        log.warning("no split.csv two folders above %s: the data are split anew, which may mix seen and unseen", path)
    task, trained = checkpoint.load_task(path)
    if cfg.test_time_flip is not None:
        task.test_time = with_mirror_image if cfg.test_time_flip else None
    adapt(trained, cfg, home)
    check_config(trained)
    data = load_data(trained.data, task, cfg.split, home)
    inspection.check_data(cfg, task, data)
    collection = Collection(features=bool(cfg.embedding or cfg.neighbours))
    trainer = build_trainer(trained, collection)
    if cfg.calibrate:
        calibrate(path, task, data, trainer, collection)
    tested = test(task, data, cfg.split, trainer)
    record(cfg, path, trained, task, data, trainer, collection, tested)
    metrics = {f"{cfg.split}/{name}": value for name, value in tested.items()}
    if home and cfg.data.root is None and cfg.test_time_flip is None:
        name = cfg.split if path.stem == "best" else f"{cfg.split}_{path.stem}"
        with replacing(home / f"metrics_{name}.json") as stream:
            stream.write(as_json(metrics))
    return metrics


def record(
    cfg: DictConfig, path: Path, trained: DictConfig, task: ClassificationTask, data: DataModule, trainer: pl.Trainer,
    collection: Collection, tested: dict[str, float],
) -> None:  # fmt: skip
    """Writes what follows from a test that was just made: intervals, tables, pictures, and what `cfg` asks for.

    Args:
        cfg: of `conf/evaluate.yaml`.
        path: the checkpoint whose weights were tested.
        trained: the config of the run.
        task, data, trainer: what was tested, on what, by what.
        collection: what came out.
        tested: the metrics by name, without a prefix.
    """
    folder = output_folder(path, run_of(path), cfg)
    evaluation = assess(task, data, cfg.split, collection.logits, tested)
    evaluation.facts = {
        "checkpoint": path.name,
        "split": cfg.split,
        "data_root": _data_root(cfg),
        "samples": len(evaluation.predictions),
        "test_time_flip": task.test_time is not None,
        "temperature": task.objective.temperature,
    }
    clear(folder)
    write_evaluation(folder, evaluation)
    show(metrics_table(f"{cfg.split}, {len(evaluation.predictions):,} samples", evaluation))
    features = collection.features if collection.wants_features else None
    Inspection(cfg, trained, task, data, cfg.split, trainer, evaluation.predictions, features, folder).answer()
    log.info("tables and pictures: %s", folder)


def defaults(path: Path, split: str) -> DictConfig:
    """What `conf/evaluate.yaml` asks for where nothing else is said, of a split."""
    return OmegaConf.structured(EvaluateConfig(run=str(path), split=split, logs=""))


def adapt(trained: DictConfig, cfg: DictConfig, home: Path | None) -> None:
    """Changes the run's config to that of an evaluation: one process, all samples, the pictures that are asked for."""
    # one process, for a distributed sampler would count some samples twice; and all of the split
    trained.trainer.update({"devices": 1, "strategy": "auto", "limit_test_batches": None, "fast_dev_run": False})
    trained.data = data_config(trained, cfg.data, home)
    trained.trainer.update({key: value for key, value in cfg.trainer.items() if value is not None})
    if trained.trainer.precision in ("auto", "16-mixed"):  # no CPU has the latter; all else stays as the run had it
        trained.trainer.precision = choose_precision("auto", trained.trainer.accelerator)


def build_trainer(trained: DictConfig, collection: Collection) -> pl.Trainer:
    """A trainer that tests, and keeps what comes out."""
    bar = [ProgressBar()] if trained.trainer.enable_progress_bar else []
    return instantiate(trained.trainer, callbacks=[*bar, collection], logger=False, enable_checkpointing=False)


def test(task: ClassificationTask, data: DataModule, split: str, trainer: pl.Trainer) -> dict[str, float]:
    """The metrics of a split by name, without a prefix: the same code as at the end of training."""
    (tested,) = trainer.test(task, dataloaders=data.loader(split), verbose=False)
    return {name.removeprefix("test/"): value for name, value in tested.items()}


def calibrate(
    path: Path, task: ClassificationTask, data: DataModule, trainer: pl.Trainer, collection: Collection
) -> None:
    """Fits the temperature on val, never on what is tested, and keeps it in the checkpoint."""
    if not data.num_samples["val"]:
        raise UsageError("calibrate=true fits the temperature on val, which this run does not have: leave it out")
    test(task, data, "val", trainer)
    targets = data.targets("val", range(data.num_samples["val"]))
    temperature = fit_temperature(collection.logits, targets)
    if temperature is None:
        log.warning("val cannot tell the temperature (has the model no mistake there?): it stays as it was")
        return
    errors = []
    for candidate in (1.0, temperature):
        task.objective.temperature = candidate
        predictions = predict(task, data, "val", collection.logits)
        errors.append(calibration_error(predictions, CALIBRATION_BINS))
    checkpoint.keep_temperature(path, temperature)
    log.info("temperature %.3f, kept in %s; val/ece %.4f before, %.4f after", temperature, path.name, *errors)


def predict(task: ClassificationTask, data: DataModule, split: str, logits: Tensor) -> Predictions:
    """What these logits say about the samples of a split."""
    targets = data.targets(split, range(len(logits)))
    probabilities = task.objective.probabilities(logits)
    paths = inspection.paths_of(data, split)
    return Predictions(paths, task.classes, targets, probabilities, task.objective.multi_label)


def assess(
    task: ClassificationTask, data: DataModule, split: str, logits: Tensor, metrics: dict[str, float]
) -> Evaluation:
    """The intervals of the metrics, and the predictions, with and without a temperature."""
    objective = task.objective.cpu()
    predictions, uncalibrated, temperature = predict(task, data, split, logits), None, objective.temperature
    if temperature != 1:
        objective.temperature = 1.0
        uncalibrated = predict(task, data, split, logits)
        objective.temperature = temperature
    losses, weights = of_each(objective, logits, predictions.targets)
    known = statistics_of(predictions, losses, weights, CALIBRATION_BINS)
    others = {name: metric for name, metric in objective.evaluation_metrics().items() if name not in known}
    known |= {
        name: resampled_metric(each, predictions.probabilities, predictions.targets) for name, each in others.items()
    }
    limits = bootstrap_intervals({name: known[name] for name in metrics}, len(predictions), data.seed)
    return Evaluation({}, metrics, limits, predictions, uncalibrated, CALIBRATION_BINS)


def of_each(objective: nn.Module, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each sample, and what it counts in the mean, both `(samples,)`."""
    each = list(zip(logits.split(1), targets.split(1), strict=True))
    with torch.no_grad():
        losses = torch.stack([objective.loss(row, target) for row, target in each])
    return losses, torch.tensor([float(objective.batch_weight(target)) for _, target in each])


def output_folder(path: Path, home: Path | None, cfg: DictConfig) -> Path:
    """`evaluation_<split>` in the run, or beside a checkpoint without one.

    For another checkpoint than the best `_<checkpoint>` follows, for other pictures `_on_<their folder>`, with
    `test_time_flip` set anew `_flipped` or `_unflipped`; and a number where that is taken by another folder of the same
    name (`data_root` in its `evaluation.json`).
    """
    checkpoint_name = "" if path.stem == "best" else f"_{path.stem}"
    root = _data_root(cfg)
    other = "" if root is None else f"_on_{Path(root).name}"
    flip = {None: "", True: "_flipped", False: "_unflipped"}[cfg.test_time_flip]
    folder = wanted = (home or path.parent) / f"evaluation_{cfg.split}{checkpoint_name}{other}{flip}"
    number = 1
    while root is not None and (read_evaluation(folder) or {}).get("data_root") not in (None, root):
        number += 1
        folder = wanted.with_name(f"{wanted.name}_{number}")
    return folder


def _data_root(cfg: DictConfig) -> str | None:
    """The whole path of the other pictures."""
    return None if cfg.data.root is None else str(Path(cfg.data.root).expanduser().resolve())
