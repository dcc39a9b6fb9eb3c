"""Facts about a trained model: its network, and how good it is."""

import math
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from headstart.runs.directory import BEST, Run
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask


@dataclass(frozen=True)
class Facts:
    """What a person should know before using a model.

    Attributes:
        network: its name.
        score: how good it is, in words; None if it is not known.
        metrics: `<split>/<name>` -> value.
    """

    network: str
    score: str | None
    metrics: dict[str, float]


def facts_of(task: ClassificationTask, trained: DictConfig, path: Path) -> Facts:
    """The facts about the model in a checkpoint; `trained`: the config of its run."""
    metrics = known_metrics(path)
    key, name = task.objective.main_score
    known = [split for split in ("test", "val") if f"{split}/{key}" in metrics]
    score = f"{name} {metrics[f'{known[0]}/{key}']:.3f} on {known[0]}" if known else None
    return Facts(network_name(task, trained), score, metrics)


def network_name(task: ClassificationTask, trained: DictConfig) -> str:
    """The name of a network, without the folder or the owner if it is a path or a name on a hub."""
    return Path(trained.model.get("name") or type(task.backbone).__name__).name


def known_metrics(path: Path) -> dict[str, float]:
    """The defined val metrics of a checkpoint, and the test metrics of its run if they are of these weights."""
    metrics = dict(checkpoint.read(path).get("metrics", {}))
    run = Run.of(path)
    if path.name == BEST and run and run.has_ended:
        metrics |= {name: value for name, value in run.metrics.items() if name.startswith("test/")}
    known = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
    return {name: value for name, value in known.items() if name.startswith(("val/", "test/"))}
