"""Configs and checkpoints of earlier versions, as today's code reads them.

A part that has moved needs one line in `MOVED`, a callback whose class has another name one line in `CALLBACKS`.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from headstart.runs import trust

MOVED = {
    "headstart.caching.activations": "headstart.caching.activation_cache",
    "headstart.caching.pictures": "headstart.caching.picture_cache",
    "headstart.data.augmentation": "headstart.inputs.images.augmentation",
    "headstart.data.base": "headstart.data.module",
    "headstart.data.cats_dogs": "headstart.datasets.cats_dogs",
    "headstart.data.cifar10": "headstart.datasets.cifar10",
    "headstart.data.digits": "headstart.datasets.digits",
    "headstart.data.fake": "headstart.datasets.fake",
    "headstart.data.image_folder": "headstart.datasets.image_folder",
    "headstart.data.letters": "headstart.datasets.letters",
    "headstart.data.two_parts": "headstart.inputs.transforms",
    "headstart.backbones.base.ImagePreprocess": "headstart.inputs.images.preprocess.ImagePreprocess",
    "headstart.reporting.csv_log": "headstart.callbacks.csv_logger",
    "headstart.reporting.curves.Curves": "headstart.callbacks.curves.Curves",
    "headstart.reporting.dashboard": "headstart.callbacks.dashboard",
    "headstart.reporting.sweep": "headstart.cli.sweep_table",
    "headstart.reporting.tables.LearningTable": "headstart.callbacks.learning_table.LearningTable",
    "headstart.schedules.slanted_triangular": "headstart.optim.schedulers.slanted_triangular",
    "headstart.schedules.warmup_cosine": "headstart.optim.schedulers.warmup_cosine",
    "headstart.tasks.mixing": "headstart.inputs.images.mixing",
}
"""Dotted name of a module, class or function -> its name today."""
CALLBACKS = {"Passes": "ForwardPassCounter"}
"""Class name of a callback, under which Lightning keeps its state in checkpoints -> its name today."""

MIXING = "headstart.inputs.images.mixing.Mixing"
MIRROR = "headstart.inputs.images.mirror.with_mirror_image"

Config = dict[str, Any]


def translated(config: DictConfig | Config) -> DictConfig:
    """A saved config of any version as today's code reads it; interpolations are kept, the argument stays as it is.

    Args:
        config: of a whole run.

    Raises:
        UsageError: it names something that may not be built from a file (`runs/trust.py`).
    """
    plain = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
    today = renamed_parts(plain)
    _move_mixing(today)
    _move_test_time_flip(today)
    _rename_unfreeze_warmup(today)
    _drop_repeated_sections(today)
    _drop_address(today)
    _drop_refresh_rate(today)
    _drop_deterministic(today)
    trust.check_config(today)
    return OmegaConf.create(today)


def translated_callbacks(states: dict[str, Any]) -> dict[str, Any]:
    """The states of callbacks in a checkpoint under the names of today's classes.

    Args:
        states: a class name, perhaps followed by arguments in braces -> the state.
    """
    return {_renamed_callback(key): state for key, state in states.items()}


def _renamed_callback(key: str) -> str:
    name, brace, arguments = key.partition("{")
    return CALLBACKS.get(name, name) + brace + arguments


def renamed_parts(node: Any) -> Any:
    """A copy of a config or of a part of one, every `_target_` under its name of today."""
    if isinstance(node, list):
        return [renamed_parts(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: name_today(value) if key == "_target_" else renamed_parts(value) for key, value in node.items()}


def name_today(target: str) -> str:
    """The name of a part today; the same name if the part has not moved."""
    for old, new in MOVED.items():
        if f"{target}.".startswith(f"{old}."):
            return new + target.removeprefix(old)
    return target


def _move_mixing(config: Config) -> None:
    """`task.mixup` and `task.cutmix` became the part `mixing`, which is null if both are 0."""
    task = config.get("task") or {}
    if "mixup" in task or "cutmix" in task:
        alphas = {name: task.pop(name, 0.0) for name in ("mixup", "cutmix")}
        config["mixing"] = {"_target_": MIXING, "_partial_": True, **alphas} if any(alphas.values()) else None


def _move_test_time_flip(config: Config) -> None:
    """`task.test_time_flip` became the part `test_time`, which is null if it was false."""
    task = config.get("task") or {}
    if "test_time_flip" in task:
        config["test_time"] = {"_target_": MIRROR, "_partial_": True} if task.pop("test_time_flip") else None


def _rename_unfreeze_warmup(config: Config) -> None:
    """`task.wake_up_steps` became `task.unfreeze_warmup_steps`."""
    task = config.get("task") or {}
    if "wake_up_steps" in task:
        task["unfreeze_warmup_steps"] = task.pop("wake_up_steps")


def _drop_repeated_sections(config: Config) -> None:
    """`task` repeated other sections of the config; today the code that builds the task reads them."""
    task = config.get("task") or {}
    for name in ("head", "optimizer", "scheduler", "mixing", "test_time", "monitor"):
        task.pop(name, None)


def _drop_address(config: Config) -> None:
    """A file that somebody sent does not decide what is downloaded: the data set knows its address and its checksum."""
    data = config.get("data") or {}
    for name in ("url", "sha256"):
        data.pop(name, None)


def _drop_refresh_rate(config: Config) -> None:
    """The progress bar decides itself how often it is drawn."""
    ((config.get("callbacks") or {}).get("progress_bar") or {}).pop("refresh_rate", None)


def _drop_deterministic(config: Config) -> None:
    """False was the default, and meant what null means: torch stays as it is set."""
    trainer = config.get("trainer") or {}
    if trainer.get("deterministic") is False:
        trainer["deterministic"] = None
