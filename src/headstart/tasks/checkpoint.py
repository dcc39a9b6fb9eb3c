"""Builds a trained task from its checkpoint file; no other file is needed."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headstart.backbones.size_limit import at_most_parameters
from headstart.errors import UsageError, causes, printable
from headstart.files import UnreadableError, read_torch_file, relative_to_cwd
from headstart.inputs.base import Preprocess, from_saved_form, saved_form
from headstart.runs.directory import LAST, PROBE, Run, checkpoints_in
from headstart.runs.earlier import renamed_parts, translated
from headstart.runs.places import use_cache_of_this_machine
from headstart.runs.trust import check_section
from headstart.tasks.base import Task
from headstart.tasks.checkpoint_io import SafeCheckpointIO
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.from_config import task_from_config

log = logging.getLogger(__name__)
TIMES_BUILT, NOT_KEPT = 8, 200_000_000
"""A network may be built with this many times the parameters in its checkpoint, and this number more.

VGG's classifier has 120 million that are not kept. mT5 registers 4.7 times the parameters of its encoder: it has a
decoder, and its embeddings have several names.
"""
KIND_OF_ENTRY = {
    **dict.fromkeys(("state_dict", "callbacks", "loops"), dict),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
    **dict.fromkeys(("global_step", "epoch"), int),
}
"""Entry of a checkpoint -> its kind."""
WHEN_DAMAGED = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RuntimeError),
    *(HydraException, OmegaConfBaseException),
)
"""Errors of the code that builds a model, if a checkpoint holds other values than it needs."""


def describe(task: Task, config: DictConfig) -> dict[str, Any]:
    """The facts that a checkpoint holds in addition to the weights, such as config and class names; plain data."""
    plain = OmegaConf.to_container(config, resolve=True)
    plain["model"] |= task.backbone.rebuild
    return {
        "config": plain,
        "classes": task.classes,
        "preprocess": saved_form(task.backbone.preprocess),
        "pretrained": task.backbone.pretrained,
        "class_weights": task.class_weights,
        "temperature": task.objective.temperature,
        "thresholds": task.objective.thresholds,
    }


def newest_valid(run: Path) -> Path | None:
    """The checkpoint from which a run can be resumed; None if there is no checkpoint.

    This is the last one. If that is damaged or missing, it is the valid checkpoint with the most steps. A warning names
    damaged files.

    Raises:
        UsageError: there are checkpoints, but the run cannot be resumed from any of them.
    """
    usable, useless = _sort_out(Run(run).checkpoints)
    reasons = "".join(f"\n  {path}: {error}" for path, error in useless.items())
    if not usable:
        if not useless:
            return None
        raise UsageError(
            f"{run} cannot be resumed, because none of its checkpoints can be used:{reasons}\n"
            "Replace one of them with an intact copy, or start a new run"
        )
    newest = max(usable, key=usable.__getitem__)
    if useless:
        step, epoch = usable[newest]
        log.warning(
            "CANNOT RESUME FROM:%s\nusing instead %s, saved after step %d (epoch %d)", reasons, newest, step, epoch
        )
    return newest


def _sort_out(paths: list[Path]) -> tuple[dict[Path, tuple[int, int]], dict[Path, UnreadableError]]:
    """Step and epoch of each usable checkpoint, or only of the last if that is usable; and the error of each other."""
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
    """Step and epoch of a checkpoint with which training can be resumed.

    Raises:
        UnreadableError: damaged, or without the state of the training.
    """
    content = _content(path)
    if "optimizer_states" not in content:
        raise UnreadableError("it holds only weights, not the state of the training (save_weights_only)")
    if "global_step" not in content or "epoch" not in content:
        raise UnreadableError("it does not say after which step it was saved")
    return content["global_step"], content["epoch"]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_torch_file(path)
    except OSError as error:
        raise UnreadableError(str(error)) from error
    facts = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(facts, dict) or "classes" not in facts:
        raise UnreadableError("it is no checkpoint of a Headstart run: it holds no class names and no config")
    if not isinstance(facts.get("config", {}), dict):
        raise UnreadableError("its config is no dictionary")
    for name, kind in KIND_OF_ENTRY.items():
        if not isinstance(content.get(name, kind()), kind):
            raise UnreadableError(f"its {name} is a {type(content[name]).__name__}, not a {kind.__name__}")
    return content


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, every byte verified; nothing in the file is executed.

    Raises:
        UsageError: the file is damaged, holds more than plain data, or is not from a Headstart run.
    """
    try:
        return _content(path)
    except UnreadableError as error:
        others = ", ".join(other.stem for other in checkpoints_in(path.parent) if other != path)
        beside = f". There are also: {others}; to evaluate one of them: checkpoint=<name>" if others else ""
        raise UsageError(f"{path} is no checkpoint that can be read safely: {error}{beside}") from error


def load_task(path: Path) -> tuple[ClassificationTask, DictConfig]:
    """The trained classifier, in eval mode, and the config of its run, from a checkpoint.

    Raises:
        UsageError: as `load_any_task`; or it is the checkpoint of another task.
    """
    task, config = load_any_task(path)
    if isinstance(task, ClassificationTask):
        return task, config
    run = Run.of(path)
    use = task.afterwards.format(run=path if run is None else relative_to_cwd(run.folder))
    raise UsageError(f"{path} holds no classifier ({type(task).__name__}), so there are no classes to predict: {use}")


def load_any_task(path: Path) -> tuple[Task, DictConfig]:
    """The same for any task.

    The backbone is built with random weights, then gets those in the file: nothing is downloaded.
    """
    content = read(path)
    try:
        return _rebuilt(content, path)
    except WHEN_DAMAGED as error:
        refused = next((each for each in causes(error) if isinstance(each, UsageError)), None)
        if refused is not None:
            named = "" if str(path) in str(refused) else f"{path}: "
            raise UsageError(f"{named}{refused}") from error
        # the first line about weights that do not fit says only that
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
        raise UsageError(
            f"{path} is damaged, or from a version that this one cannot read: no model can be built from it ({reason})"
        ) from error


def _rebuilt(content: dict[str, Any], path: Path) -> tuple[Task, DictConfig]:
    facts = content["hyper_parameters"]
    _check_facts(facts)
    config, preprocess = translated(facts["config"]), preprocess_of(facts)
    if "architecture" in config.model and config.model.architecture is None:
        raise UsageError(f"{path} does not hold the architecture of its network: give another checkpoint")
    # settings that the config left open because the weights define them, such as the image size
    saved = {name: value for name, value in asdict(preprocess).items() if name in config.model}
    state = content["state_dict"]
    # parts of a network that are not kept, such as its classifier or its decoder, are also built
    with at_most_parameters(TIMES_BUILT * sum(value.numel() for value in state.values()) + NOT_KEPT):
        # in two steps: what instantiate() gets is a config to it, so it would build a `_target_` in these values
        backbone = instantiate(config.model, _partial_=True)(**saved | {"weights": None})
        backbone.preprocess = preprocess
        backbone.pretrained = facts["pretrained"]
        task = task_from_config(config, backbone, facts["classes"], facts["class_weights"])
    task.load_state_dict(state)
    task.objective.temperature = facts.get("temperature", 1.0)
    task.objective.thresholds = facts.get("thresholds")
    task.save_hyperparameters(facts)
    use_cache_of_this_machine(config)
    return task.eval(), config


def _check_facts(facts: dict[str, Any]) -> None:
    """Raises a ValueError if values in a checkpoint are not of the kind that `describe` writes."""
    classes, temperature, thresholds = facts["classes"], facts.get("temperature", 1.0), facts.get("thresholds")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes is no list of texts")
    if not isinstance(temperature, (int, float)) or not 0 < temperature < 1e9:
        raise ValueError(f"temperature={printable(str(temperature)[:100])} is no positive number")
    if thresholds is not None and not (
        isinstance(thresholds, list)
        and len(thresholds) == len(classes)
        and all(isinstance(each, (int, float)) for each in thresholds)
    ):
        raise ValueError("thresholds is no list with a number for each class")


def preprocess_of(facts: Mapping[str, Any]) -> Preprocess:
    """The preprocessing that the facts in a checkpoint describe; an earlier version may have written them.

    Raises:
        UsageError: they name something else than a preprocessing with plain values.
    """
    saved = renamed_parts(facts["preprocess"])
    # a text is never resolved, so it may have "${", as the vocabulary of an encoder
    check_section("preprocess", {k: v for k, v in saved.items() if k == "_target_" or not isinstance(v, str)})
    return from_saved_form(saved)


def keep_thresholds(path: Path, thresholds: list[float]) -> None:
    """Writes the threshold of each label into a checkpoint, where `load_task` reads it.

    Raises:
        UsageError: the checkpoint cannot be read or written.
    """
    content = read(path)
    content["hyper_parameters"]["thresholds"] = thresholds
    SafeCheckpointIO().save_checkpoint(content, path)


def keep_temperature(
    path: Path, temperature: float, error: float | None = None, thresholds: list[float] | None = None
) -> None:
    """Writes the temperature of the probabilities into a checkpoint, where `load_task` reads it.

    Args:
        path: the checkpoint.
        temperature: of the probabilities.
        error: the calibration error on val with it, which replaces the one in the checkpoint; None: not known.
        thresholds: of the labels, for probabilities with this temperature; None: the model has none.

    Raises:
        UsageError: the checkpoint cannot be read or written.
    """
    content = read(path)
    content["hyper_parameters"] |= {"temperature": temperature, "thresholds": thresholds}
    if "val/ece" in content.get("metrics", {}):
        content["metrics"]["val/ece"] = error
    SafeCheckpointIO().save_checkpoint(content, path)
