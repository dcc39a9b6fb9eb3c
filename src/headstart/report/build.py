"""Writes the report page of a run and its model card."""

import logging
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from omegaconf import DictConfig, OmegaConf

import headstart
from headstart.callbacks.logit_collector import LogitCollector
from headstart.cli.schemas import ReportConfig
from headstart.data.module import DataModule
from headstart.data.trained_run import load_data
from headstart.display.page import write_page
from headstart.errors import UsageError
from headstart.evaluation import evaluate as evaluation
from headstart.files import relative_to_cwd
from headstart.inference.facts import network_name
from headstart.report.data_card import LISTED, data_card
from headstart.report.results import results_of, without_repeats
from headstart.report.training_card import training_card
from headstart.runs.directory import BEST, MODEL_CARD, REPORT, Run
from headstart.runs.places import check_links
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)
HUB_METRICS = {"acc": "accuracy", "f1_macro": "f1", "auroc_macro": "roc_auc"}
"""Metric -> its name on the Hugging Face hub."""
HUB_METRICS_OF_NUMBERS = {"r2": "r_squared", "mae": "mae", "rmse": "rmse"}


def report(cfg: DictConfig, path: Path) -> list[Path]:
    """Writes the page and the model card of a run, and returns the two files.

    Val is evaluated if the run has no evaluation of it, or one from before a calibration. Test is not evaluated: the
    page shows its recorded results.

    Args:
        cfg: of `conf/report.yaml`.
        path: the best checkpoint of the run.

    Raises:
        UsageError: it is not the best checkpoint of a run that has ended.
    """
    run = Run.of(path)
    if run is None or path.name != BEST:
        raise UsageError(f"run={cfg.run}: a report needs a whole run; give its directory, logs/<name>/runs/<date>")
    check_links(run.folder)
    if not run.has_ended:
        raise UsageError(
            f"{run.folder} has no {run.metrics_file.name}, so the run has not ended: resume it with "
            f"python src/train.py resume={run.folder}"
        )
    task, trained = checkpoint.load_task(path)
    data = build_data(run, trained, task)
    known = run.evaluation("val")
    is_recent = known is not None and known.get("temperature", 1.0) == task.objective.temperature
    if not is_recent and run.metrics_of("val") and not isinstance(data, str):
        evaluation.evaluate(evaluation.defaults(path, "val"), path)
    try:
        content = contents(cfg, run, trained, task, data)
    except (KeyError, TypeError, AttributeError, IndexError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{run.folder}: a file of the run cannot be read, perhaps it is damaged ({type(error).__name__}: {error}). "
            "With HYDRA_FULL_ERROR=1 before the command you see where"
        ) from error
    write_page(run.report_file, REPORT, **content)
    write_page(run.model_card_file, MODEL_CARD, header=hub_header(cfg, content), **content)
    return [run.report_file, run.model_card_file]


def report_on(
    cfg: DictConfig, task: ClassificationTask, data: DataModule, trainer: pl.Trainer, collector: LogitCollector,
    metrics: dict[str, float],
) -> None:  # fmt: skip
    """Writes the page about a run at the end of its training; the test on the page is the one that was just made.

    Args:
        cfg: the config of the run.
        task: the trained model.
        data: its data.
        trainer: has tested the model.
        collector: the logits of the test.
        metrics: of the run, `<split>/<name>`.
    """
    run = Run(Path(cfg.paths.run))
    path = run.best
    if not path.is_file():
        log.warning("report=true: the run has no checkpoint of the best weights, so no page is written")
        return
    if collector.has_logits:
        tested = {k.removeprefix("test/"): v for k, v in metrics.items() if k.startswith("test/")}
        asked = evaluation.defaults(path, "test")
        evaluation.write_evaluation(asked, path, cfg, task, data, trainer, collector, tested)
    page, _ = report(OmegaConf.structured(ReportConfig(run=str(run.folder), logs="")), path)
    log.info("report: %s", relative_to_cwd(page))


def build_data(run: Run, trained: DictConfig, task: ClassificationTask) -> DataModule | str:
    """The data of the run, split as in training; if they cannot be read, the reason."""
    config = evaluation.config_for_evaluation(trained, evaluation.defaults(run.best, "val"), run).data
    try:
        return load_data(config, task.classes, task.backbone.preprocess, "val", run, download=False)
    except (UsageError, OSError) as error:
        log.warning("the data cannot be read, so the page does not show them: %s", error)
        return str(error)


def contents(
    cfg: DictConfig, run: Run, trained: DictConfig, task: ClassificationTask, data: DataModule | str
) -> dict[str, Any]:
    """The values of the templates."""
    card = data_card(run, trained, task.classes, data, task.backbone.preprocess, cfg.examples)
    training = training_card(run, trained, task)
    found = without_repeats(
        [each for split in ("test", "val") if (each := results_of(run, split, task, data, cfg.worst))]
    )
    network = network_name(task, trained)
    return {
        "title": cfg.title or f"{network} on {card.name}",
        "license": cfg.license,
        "date": datetime.fromtimestamp(run.metrics_file.stat().st_mtime).strftime("%Y-%m-%d"),
        "version": headstart.__version__,
        "run": run,
        "shown_run": relative_to_cwd(run.folder),
        "headline": ("acc", "acc_exact", "map", "f1_macro", "auroc_macro", "ece", "r2", "mae", "rmse"),
        "network": network,
        "data": card,
        "training": training,
        "results": found,
        "validated": trained.trainer.get("limit_val_batches") != 0,
        "seed": trained.seed,
        "listed": LISTED,
        "multi_label": task.objective.multi_label,
        "numbers": task.objective.numbers,
        "temperature": task.objective.temperature,
        "worst_name": task.objective.worst_name,
        "input": task.backbone.preprocess.describe()["summary"],
        "export_files": list(task.backbone.preprocess.files_beside()),
        "hub_task": hub_task(task),
        "sample_name": task.backbone.preprocess.sample_name,
    }


def hub_task(task: ClassificationTask) -> str:
    """The task on the Hugging Face hub; for numbers `image-regression` or `text-regression`, as AutoTrain calls it."""
    named = task.backbone.preprocess.hub_task
    return named.replace("classification", "regression") if task.objective.numbers else named


def hub_header(cfg: DictConfig, content: dict[str, Any]) -> str:
    """The YAML header of a model card for the Hugging Face hub (https://huggingface.co/docs/hub/model-cards)."""
    tags = ["headstart", "transfer-learning", content["hub_task"], content["network"]]
    header = {
        "license": cfg.license,
        "library_name": "pytorch-lightning",
        # the hub knows no pipeline for numbers of pictures or texts
        **({} if content["numbers"] else {"pipeline_tag": content["hub_task"]}),
        "tags": tags,
        "metrics": list(_hub_metrics(content).values()),
        "model-index": [{"name": content["title"], "results": _hub_results(content)}],
    }
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip()


def _hub_metrics(content: dict[str, Any]) -> dict[str, str]:
    return HUB_METRICS_OF_NUMBERS if content["numbers"] else HUB_METRICS


def _hub_results(content: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per split."""
    name = content["data"].name
    entries = []
    known = _hub_metrics(content)
    for each in content["results"]:
        metrics = [
            {"type": known[m.key], "name": f"{each.split}/{m.key}", "value": round(m.value, 6)}
            for m in each.metrics
            if m.key in known
        ]
        dataset = {"name": name, "type": re.sub(r"[^a-z0-9_.-]+", "_", name.lower()), "split": each.split}
        entries.append({"task": {"type": content["hub_task"]}, "dataset": dataset, "metrics": metrics})
    return entries
