"""A trained task from nothing but its file."""

import logging
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from headstart.errors import UsageError
from headstart.files import UnreadableError, read_torch_file
from headstart.inputs.base import from_saved_form, saved_form
from headstart.runs.directory import LAST, PROBE, Run, checkpoints_in
from headstart.runs.earlier import renamed_parts, translated
from headstart.tasks.checkpoint_io import SafeCheckpointIO
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.from_config import task_from_config

log = logging.getLogger(__name__)


def describe(task: ClassificationTask, config: DictConfig) -> dict[str, Any]:
    """What a checkpoint must hold beside the weights: the composed config, class names and so on; plain data."""
    return {
        "config": OmegaConf.to_container(config, resolve=True),
        "classes": task.classes,
        "preprocess": saved_form(task.backbone.preprocess),
        "pretrained": task.backbone.pretrained,
        "class_weights": task.class_weights,
        "temperature": task.objective.temperature,
    }


def newest_valid(run: Path) -> Path | None:
    """The checkpoint from which a run goes on, or None where it has none.

    That is the last one; where it is damaged or was never kept, the one of the most steps. A damaged file is told of.

    Raises:
        UsageError: there are checkpoints, but no run can go on from any of them.
    """
    usable, useless = _sort_out(Run(run).checkpoints)
    reasons = "".join(f"\n  {path}: {error}" for path, error in useless.items())
    if not usable:
        if not useless:
            return None
        raise UsageError(
            f"{run} cannot go on, for none of its checkpoints can be used:{reasons}\n"
            "Put an intact copy of one in its place, or start a new run"
        )
    newest = max(usable, key=usable.__getitem__)
    if useless:
        step, epoch = usable[newest]
        log.warning(
            "CANNOT GO ON FROM:%s\nusing instead %s, saved after step %d (epoch %d)", reasons, newest, step, epoch
        )
    return newest


def _sort_out(paths: list[Path]) -> tuple[dict[Path, tuple[int, int]], dict[Path, UnreadableError]]:
    """Step and epoch of what training can go on from, of the last alone if that can be; and why not from others."""
    usable, useless = {}, {}
    found = [path for path in paths if path.name != PROBE]
    for path in sorted(found, key=lambda path: (path.name != LAST, path.name)):
        try:
            usable[path] = _progress(path)
        except UnreadableError as error:
            useless[path] = error
        if path.name == LAST and path in usable:
            break
    return usable, useless


def _progress(path: Path) -> tuple[int, int]:
    """Step and epoch of a checkpoint that training can go on from.

    Raises:
        UnreadableError: damaged, or not such a checkpoint.
    """
    content = _content(path)
    if "optimizer_states" not in content:
        raise UnreadableError("it holds weights alone, not the state of the training (save_weights_only)")
    return content["global_step"], content["epoch"]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_torch_file(path)
    except OSError as error:
        raise UnreadableError(str(error)) from error
    facts = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(facts, dict) or "classes" not in facts:
        raise UnreadableError("it is no checkpoint of a Headstart run: it holds no class names and no config")
    return content


def read(path: Path) -> dict[str, Any]:
    """The checkpoint as plain data, every byte verified; nothing in the file is executed.

    Raises:
        UsageError: damaged, more than plain data, or not of a Headstart run.
    """
    try:
        return _content(path)
    except UnreadableError as error:
        others = ", ".join(other.stem for other in checkpoints_in(path.parent) if other != path)
        beside = f". There are also: {others}; to evaluate one: checkpoint=<name>" if others else ""
        raise UsageError(f"{path} is no checkpoint that can be read safely: {error}{beside}") from error


def load_task(path: Path) -> tuple[ClassificationTask, DictConfig]:
    """The trained task in eval mode and the config it was trained with, from a checkpoint of a run.

    The backbone is built without weights, then filled from the file: nothing is downloaded.
    """
    content = read(path)
    facts = content["hyper_parameters"]
    config = translated(facts["config"])
    # settings of the model that the config left to the weights, such as the image size
    saved = {key: value for key, value in facts["preprocess"].items() if key in config.model and key != "_target_"}
    backbone = instantiate(config.model, **saved | {"weights": None})
    backbone.preprocess = from_saved_form(renamed_parts(facts["preprocess"]))
    backbone.pretrained = facts["pretrained"]
    task = task_from_config(config, backbone, facts["classes"], facts["class_weights"])
    task.load_state_dict(content["state_dict"])
    task.objective.temperature = facts.get("temperature", 1.0)
    task.save_hyperparameters(facts)
    return task.eval(), config


def keep_temperature(path: Path, temperature: float) -> None:
    """Writes the temperature of the model's probabilities into its checkpoint, from which `load_task` takes it.

    Raises:
        UsageError: the checkpoint cannot be read or written.
    """
    content = read(path)
    content["hyper_parameters"]["temperature"] = temperature
    SafeCheckpointIO().save_checkpoint(content, path)
