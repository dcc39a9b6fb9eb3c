"""Finds the mistakes in a config that need no import of what it names: the answer takes a second instead of six.

By hand, because Hydra compares types for the top level only, and builds a part before it notices what is wrong with it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from headstart.cli.early_checks import late_mistakes
from headstart.cli.overrides import command_line_overrides, compose_choices
from headstart.cli.schemas import CACHES, COMPONENTS, OPTIONAL_COMPONENTS, CacheConfig, TrainConfig
from headstart.cli.usual_words import translations
from headstart.errors import UsageError, nearest
from headstart.metrics.scores import best_is
from headstart.runs.hyperparameters import key_of

# Settings of Lightning's Trainer that also take a text (auto) where our files have a number
ALSO_TEXT = {"trainer.devices"}
MAY_BE_AUTO = {"data.batch_size"}
"""Numbers that may also be `auto`."""


def check_without_imports(config: DictConfig) -> None:
    """Refuses mistakes that the config and the command line alone show.

    Raises:
        UsageError: lists all these mistakes at once.
    """
    problems = [*plain_problems(config), *_text_problems(config, command_line_overrides())]
    refuse(problems or list(late_mistakes(config)))


def has_one_process(config: DictConfig) -> bool:
    """Whether a training runs on one device of one machine; False for `devices=auto`: the number is not known yet."""
    devices = config.trainer.devices
    is_one = len(devices) == 1 if isinstance(devices, ListConfig) else devices == 1
    return is_one and config.trainer.get("num_nodes", 1) == 1


def refuse(problems: list[str]) -> None:
    """Raises a UsageError that lists the problems, if there are any."""
    if problems:
        raise UsageError("the configuration has mistakes:\n  - " + "\n  - ".join(problems))


def plain_problems(config: DictConfig) -> Iterator[str]:
    """Keys that no entry point reads, parts without a `_target_`, values that are missing or contradict each other.

    Raises:
        UsageError: a component is missing altogether, so that others cannot refer to it.
    """
    missing = [name for name in COMPONENTS if OmegaConf.is_missing(config, name)]
    if missing:
        raise UsageError("; ".join(f"there is no {name}: {_choose(name)}, {name}=<name>" for name in missing))
    for key in config:
        if key not in TrainConfig.__dataclass_fields__:  # `+key=` lets any key in
            translated = next(translations([f"{key}={config[key]}"]), None)
            yield translated or f"there is no key {key!r}{nearest(str(key), TrainConfig.__dataclass_fields__)}"
    yield from _cache_problems(config)
    for name, node in parts(config):
        yield from _target_problems(name, node)
        yield from _missing_values(name, node)
    best = best_is(config.monitor)
    if config.mode != best:
        yield f"mode={config.mode} contradicts monitor={config.monitor}, which is best at its {best}: mode={best}"
    several = not has_one_process(config)
    if several and config.data.get("batch_size") == "auto":
        yield "data.batch_size=auto is for one device: give a number, which is per device"
    if config.get("lr_find") and several:
        yield "lr_find=true runs on one device: run it with trainer=auto, then give the result as optimizer.lr=<value>"


def parts(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """The dotted name and the plain value of each part that is built from its `_target_`."""
    plain = OmegaConf.to_container(config, resolve=True)
    for name in COMPONENTS:
        yield name, plain.get(name)
    for name in CACHES if plain.get("cache") else ():
        yield f"cache.{name}", plain["cache"].get(name)
    for group in ("callbacks", "logger"):
        for name, node in plain[group].items():
            yield f"{group}.{name}", node


def nodes(name: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each dictionary in a part, the part itself included, with its dotted name."""
    if isinstance(node, dict):
        yield name, node
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in below:
        yield from nodes(f"{name}.{key}", value)


def _choose(component: str) -> str:
    return f"choose a file of conf/{component}"


def _target_problems(name: str, node: Any) -> Iterator[str]:
    if isinstance(node, dict) and "_target_" in node:
        return
    group = name.partition(".")[0]
    if group in ("callbacks", "logger"):
        yield f"{name} has no _target_; to leave one out write ~{name}"
    elif group == "cache" and node is not None:
        yield f"{name}={node} has no _target_; to leave it out write {name}=null"
    elif group != "cache" and not (node is None and name in OPTIONAL_COMPONENTS):
        yield f"{name} has no _target_: {_choose(name)}, for example {name}=<name>"


def _missing_values(name: str, node: Any) -> Iterator[str]:
    for where, each in nodes(name, node):
        for key, value in each.items():
            if value == "???":
                yield f"{where}.{key} must be given: add {where}.{key}=<value>"


def _cache_problems(config: DictConfig) -> Iterator[str]:
    allowed = list(CacheConfig.__dataclass_fields__)
    for key in config.cache or ():
        if key not in allowed:
            hint = f"{nearest(str(key), allowed)} (it takes {', '.join(allowed)}; cache=off switches it off)"
            yield f"cache takes no {key!r}{hint}"


def _text_problems(config: DictConfig, overrides: Iterable[str]) -> Iterator[str]:
    """Texts on the command line where the files of `conf/` have a number, or true or false.

    Other differences are left to `check_config`: where a file has a number, a list or null may be allowed too.
    """
    settings = {key for key in map(key_of, overrides) if "." in key} - ALSO_TEXT
    texts = {key: value for key in sorted(settings) if isinstance(value := OmegaConf.select(config, key), str)}
    if not texts:
        return
    from_files = compose_choices("train", overrides)
    for key, value in texts.items():
        usual = OmegaConf.select(from_files, key)
        if key in MAY_BE_AUTO:
            if value != "auto":
                yield f"{key}={value}: this must be a number or auto"
        elif isinstance(usual, (bool, int, float)):
            yield f"{key}={value}: this must be {'true or false' if isinstance(usual, bool) else 'a number'}"
