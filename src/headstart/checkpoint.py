"""A trained task from nothing but its file."""

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from headstart.backbones.base import ImagePreprocess
from headstart.errors import UsageError
from headstart.tasks.classification import ClassificationTask


def describe(task: ClassificationTask, config: DictConfig) -> dict[str, Any]:
    """What a checkpoint must hold beside the weights: the composed config, class names, preprocessing; plain data."""
    return {
        "config": OmegaConf.to_container(config, resolve=True),
        "classes": task.classes,
        "preprocess": asdict(task.backbone.preprocess),
        "pretrained": task.backbone.pretrained,
        "class_weights": task.class_weights,
    }


def find(run: str, checkpoint: str = "best") -> Path:
    """The checkpoint file of a run directory, or the file itself.

    Raises:
        UsageError: there is none.
    """
    path = Path(run).expanduser().resolve()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"run={run}: no such file or folder; give a run directory such as logs/train/runs/<date>")
    found = sorted((path / "checkpoints").glob("*.ckpt"))
    for candidate in found:
        if candidate.stem == checkpoint:
            return candidate
    names = ", ".join(candidate.stem for candidate in found) or "none"
    raise UsageError(f"run={run}: no checkpoint {checkpoint!r} in its checkpoints folder; there are: {names}")


def read(path: Path) -> dict[str, Any]:
    """The checkpoint as plain data; nothing in the file is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is no checkpoint that can be read safely: {reason}") from error
    if "classes" not in content.get("hyper_parameters", {}):
        raise UsageError(f"{path} is no checkpoint of a Headstart run: it holds no class names and no config")
    return content


def load_task(path: Path) -> tuple[ClassificationTask, DictConfig]:
    """The trained task in eval mode and the config it was trained with, from a checkpoint of a run.

    The backbone is built without weights, then filled from the file: nothing is downloaded.
    """
    content = read(path)
    facts = content["hyper_parameters"]
    config = OmegaConf.create(facts["config"])
    # the size the weights had, where the config left it to them
    sized = {"image_size": facts["preprocess"]["image_size"]} if "image_size" in config.model else {}
    backbone = instantiate(config.model, weights=None, **sized)
    backbone.preprocess = ImagePreprocess(**facts["preprocess"])
    backbone.pretrained = facts["pretrained"]
    task = instantiate(config.task)(backbone=backbone, classes=facts["classes"], class_weights=facts["class_weights"])
    task.load_state_dict(content["state_dict"])
    task.save_hyperparameters(facts)
    return task.eval(), config
