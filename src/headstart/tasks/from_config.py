"""The task that a config describes: each part is built from its own section."""

from collections.abc import Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig

from headstart.backbones.base import Backbone
from headstart.tasks.base import Task

PARTS = ("head", "optimizer", "scheduler", "mixing", "test_time")
"""Sections of the config whose objects are arguments of the task; null: None."""


def task_from_config(
    cfg: DictConfig, backbone: Backbone, classes: Sequence[str], class_weights: Sequence[float] | None
) -> Task:
    """Builds the task around a backbone.

    Args:
        cfg: config of a run.
        backbone: inputs -> features.
        classes: names in the order of the outputs.
        class_weights: weight of each class in the loss.
    """
    parts = {name: instantiate(cfg.get(name)) for name in PARTS}
    return instantiate(cfg.task)(
        backbone=backbone, classes=classes, class_weights=class_weights, monitor=cfg.monitor, **parts
    )
