"""A run as one page and as a model card."""

import logging
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from omegaconf import DictConfig, OmegaConf

import headstart
from headstart.callbacks.collection import Collection
from headstart.cli.schemas import ReportConfig
from headstart.data.module import DataModule
from headstart.data.trained_run import load_data, run_of
from headstart.display.page import write_page
from headstart.errors import UsageError
from headstart.evaluation import evaluate as evaluation
from headstart.files import relative_to_cwd
from headstart.report.data_card import LISTED, data_card
from headstart.report.results import evaluation_of, result, run_metrics
from headstart.report.training_card import training_card
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)
PAGE, CARD = "report.html", "MODEL_CARD.md"
# what the Hugging Face hub calls them
HUB_METRICS = {"acc": "accuracy", "f1_macro": "f1", "auroc_macro": "roc_auc"}


def report(cfg: DictConfig, path: Path) -> list[Path]:
    """Writes the page and the model card of a run, and returns where they are.

    Val is evaluated if the run has no evaluation of it; of the test split is told what was recorded, no more.

    Args:
        cfg: of `conf/report.yaml`.
        path: the best checkpoint of the run.

    Raises:
        UsageError: it is not the best checkpoint of a run that has ended.
    """
    started = time.monotonic()
    home = run_of(path)
    if home is None or path.name != "best.ckpt":
        raise UsageError(f"run={cfg.run}: a report is about a whole run; give its directory, logs/<name>/runs/<date>")
    if not (home / "metrics.json").is_file():
        raise UsageError(
            f"{home} has no metrics.json, so it is no run that has ended: go on with it by "
            f"python src/train.py resume={home}"
        )
    task, trained = checkpoint.load_task(path)
    data = build_data(home, trained, task)
    if evaluation_of(home, "val") is None and run_metrics(home, "val") and not isinstance(data, str):
        evaluation.evaluate(evaluation.defaults(path, "val"), path)
    content = contents(cfg, home, trained, task, data)
    write_page(home / PAGE, "report.html", **content)
    write_page(home / CARD, "MODEL_CARD.md", header=hub_header(cfg, content), **content)
    log.info("report: %s (%.0f s)", home / PAGE, time.monotonic() - started)
    return [home / PAGE, home / CARD]


def report_on(
    cfg: DictConfig, task: ClassificationTask, data: DataModule, trainer: pl.Trainer, collection: Collection,
    metrics: dict[str, float],
) -> None:  # fmt: skip
    """Writes the page about the run; the test that it tells of is the one that was just made."""
    run = Path(cfg.paths.run)
    path = run / "checkpoints" / "best.ckpt"
    if not path.is_file():
        log.warning("report=true: the run kept no best checkpoint, so there is no page about it")
        return
    if collection.has_logits:
        tested = {k.removeprefix("test/"): v for k, v in metrics.items() if k.startswith("test/")}
        asked = evaluation.defaults(path, "test")
        evaluation.record(asked, path, cfg, task, data, trainer, collection, tested)
    report(OmegaConf.structured(ReportConfig(run=str(run), logs="")), path)


def build_data(home: Path, trained: DictConfig, task: ClassificationTask) -> DataModule | str:
    """The run's data as it saw them, or why they are not there."""
    evaluation.adapt(trained, evaluation.defaults(home, "val"), home)
    try:
        return load_data(trained.data, task, "val", home, download=False)
    except (UsageError, OSError) as error:
        log.warning("the data cannot be read, so nothing is shown of them: %s", error)
        return str(error)


def contents(
    cfg: DictConfig, home: Path, trained: DictConfig, task: ClassificationTask, data: DataModule | str
) -> dict[str, Any]:
    """What the templates are filled with."""
    card = data_card(home, trained, task.classes, data, cfg.examples)
    training = training_card(home, trained, task)
    found = [result(home, split, task, data, cfg.worst) for split in ("test", "val")]
    network = trained.model.get("name") or type(task.backbone).__name__
    return {
        "title": cfg.title or f"{network} on {card.name}",
        "license": cfg.license,
        "date": datetime.fromtimestamp((home / "metrics.json").stat().st_mtime).strftime("%Y-%m-%d"),
        "version": headstart.__version__,
        "run": home,
        "shown_run": relative_to_cwd(home),
        "headline": ("acc", "acc_exact", "f1_macro", "auroc_macro", "ece"),
        "network": network,
        "data": card,
        "training": training,
        "results": [each for each in found if each],
        "seed": trained.seed,
        "listed": LISTED,
        "multi_label": task.objective.multi_label,
        "input": task.backbone.preprocess.describe()["summary"],
        "hub_task": task.backbone.preprocess.hub_task,
    }


def hub_header(cfg: DictConfig, content: dict[str, Any]) -> str:
    """The head of a model card as the Hugging Face hub reads it (https://huggingface.co/docs/hub/model-cards)."""
    tags = ["headstart", "transfer-learning", content["hub_task"], content["network"]]
    header = {
        "license": cfg.license,
        "library_name": "pytorch-lightning",
        "pipeline_tag": content["hub_task"],
        "tags": tags,
        "metrics": list(HUB_METRICS.values()),
        "model-index": [{"name": content["title"], "results": _hub_results(content)}],
    }
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip()


def _hub_results(content: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a split."""
    name = content["data"].name
    entries = []
    for each in content["results"]:
        metrics = [
            {"type": HUB_METRICS[m.key], "name": f"{each.split}/{m.key}", "value": round(m.value, 6)}
            for m in each.metrics
            if m.key in HUB_METRICS
        ]
        dataset = {"name": name, "type": name.lower(), "split": each.split}
        entries.append({"task": {"type": content["hub_task"]}, "dataset": dataset, "metrics": metrics})
    return entries
