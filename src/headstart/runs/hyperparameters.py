"""Which settings of a config are hyperparameters: they change the trained model, not only how it is saved and shown."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

WATCHERS = ("best_checkpoint", "last_checkpoint", "interruption", "learning_rate", "learning_table", "progress_bar",
            "epoch_lines", "dashboard", "curves")  # fmt: skip
"""Callbacks that do not change the trained model; others, such as `ema`, do."""
NOT_HYPERPARAMETERS = (
    *("name", "paths", "resume", "report", "compare_scratch", "logger"),
    *(f"callbacks.{name}" for name in WATCHERS),
)
"""Parts of a config that only say how a run is named, saved and shown."""


def is_hyperparameter(key: str) -> bool:
    """Whether a setting, such as `optimizer.lr`, changes the trained model."""
    return not f"{key}.".startswith(tuple(f"{part}." for part in NOT_HYPERPARAMETERS))


def settings_of(config: DictConfig) -> dict[str, Any]:
    """All settings of a config, dotted key -> value; interpolations stay as written, so that no value counts twice."""
    return dict(_flat(OmegaConf.to_container(config), ""))


def _flat(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def key_of(override: str) -> str:
    """`optimizer.lr` of `+optimizer.lr=0.1`, `experiment` of `~experiment`."""
    return override.lstrip("+~").partition("=")[0]
