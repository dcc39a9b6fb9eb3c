"""One check of every `_target_` in the config before anything is built or downloaded."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from headstart.cli.schemas import CacheConfig, TrainConfig
from headstart.cli.signatures import Unreadable, read_parameters
from headstart.errors import UsageError, nearest
from headstart.metrics.scores import best_is

ParametersOf = Callable[[str], dict[str, inspect.Parameter]]  # what the `_target_` of this name takes
# Arguments that the entry points give when they build a part, so no config has them
GIVEN = {"backbone", "in_features", "num_outputs", "num_classes", "params", "optimizer", "preprocess"}
# The types a command line can give, and what to call them
PLAIN = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
OPTIONAL = ("augmentation", "mixing", "test_time", "scheduler")
COMPONENTS = (
    *("model", "head", "data", "augmentation", "mixing", "test_time", "finetuning", "optimizer", "scheduler", "task"),
    "trainer",
)
CACHES = ("activations", "pictures")


def check_config(config: DictConfig) -> None:
    """Compares every `_target_` node with the signature of what it builds.

    Raises:
        UsageError: listing all mistakes at once, each with the nearest valid name.
    """
    missing = [name for name in COMPONENTS if OmegaConf.is_missing(config, name)]
    if missing:  # others refer to it, so nothing else can be said yet
        raise UsageError(
            "; ".join(f"there is no {name}: choose a file of conf/{name}, {name}=<name>" for name in missing)
        )
    # what the source files tell takes a tenth of a second; what only the imported parts tell takes several
    for parameters_of in (_readable_parameters, _imported_parameters):
        problems = [*_component_problems(config, parameters_of), *_mode_problems(config), *_rate_problems(config)]
        if problems:
            raise UsageError("the configuration has mistakes:\n  - " + "\n  - ".join(problems))


def _readable_parameters(target: str) -> dict[str, inspect.Parameter]:
    try:
        return read_parameters(target)
    except (Unreadable, ImportError, RecursionError, ValueError):  # the last three: sources that cannot work
        return _imported_parameters(target)


def _imported_parameters(target: str) -> dict[str, inspect.Parameter]:
    return call_parameters(get_object(target))


def _mode_problems(config: DictConfig) -> Iterator[str]:
    right = best_is(config.monitor)
    if config.mode != right:
        yield f"mode={config.mode} contradicts monitor={config.monitor}, which is best at its {right}: mode={right}"


def _rate_problems(config: DictConfig) -> Iterator[str]:
    if config.get("lr_find") and (config.trainer.devices != 1 or config.trainer.get("num_nodes", 1) != 1):
        yield "lr_find=true runs on one device: find the rate with trainer=auto, then give optimizer.lr=<rate>"


def _component_problems(config: DictConfig, parameters_of: ParametersOf) -> Iterator[str]:
    plain = OmegaConf.to_container(config, resolve=True)
    for key in plain.keys() - TrainConfig.__dataclass_fields__.keys():  # what `+key=` let in
        yield f"there is no key {key!r}{nearest(key, TrainConfig.__dataclass_fields__)}"
    for name in COMPONENTS:
        node = plain.get(name)
        if not (isinstance(node, dict) and "_target_" in node) and not (node is None and name in OPTIONAL):
            yield f"{name} has no _target_: choose a file of conf/{name}, for example {name}=<name>"
        yield from _node_problems(name, _own(config, name, node), parameters_of)
    yield from _cache_problems(plain["cache"], parameters_of)
    for group in ("callbacks", "logger"):
        for name, node in plain[group].items():
            if not isinstance(node, dict) or "_target_" not in node:
                yield f"{group}.{name} has no _target_; to leave one out write ~{group}.{name}"
            yield from _node_problems(f"{group}.{name}", node, parameters_of)


def _cache_problems(plain: Any, parameters_of: ParametersOf) -> Iterator[str]:
    if plain is None:
        return
    for key in plain.keys() - CacheConfig.__dataclass_fields__.keys():
        allowed = list(CacheConfig.__dataclass_fields__)
        yield f"cache takes no {key!r}{nearest(key, allowed)} (it takes {', '.join(allowed)}; cache=off is none)"
    for name in CACHES:
        node = plain.get(name)
        if node is not None and not (isinstance(node, dict) and "_target_" in node):
            yield f"cache.{name}={node} has no _target_; to leave it out write cache.{name}=null"
        yield from _node_problems(f"cache.{name}", node, parameters_of)


def _own(config: DictConfig, name: str, plain: Any) -> Any:
    """A component without the other components it refers to, such as `task.head: ${head}`: those are checked once."""
    if not isinstance(plain, dict):
        return plain
    return {key: None if OmegaConf.is_interpolation(config[name], key) and isinstance(value, dict) else value
            for key, value in plain.items()}  # fmt: skip


def _node_problems(where: str, node: Any, parameters_of: ParametersOf) -> Iterator[str]:
    """Mistakes in a node and in all below it."""
    if isinstance(node, list):
        for place, item in enumerate(node):
            yield from _node_problems(f"{where}.{place}", item, parameters_of)
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield from _call_problems(where, node, parameters_of)
    for key, value in node.items():
        yield from _node_problems(f"{where}.{key}", value, parameters_of)


def _call_problems(where: str, node: dict[str, Any], parameters_of: ParametersOf) -> Iterator[str]:
    try:
        parameters = parameters_of(node["_target_"])
    except Exception as error:
        yield f"{where}._target_={node['_target_']} cannot be imported: {error}"
        return
    given = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    for key, value in given.items():
        if key not in parameters:
            allowed = sorted(set(parameters) - GIVEN)
            yield f"{where} takes no {key!r}{nearest(key, allowed)} ({node['_target_']} takes {', '.join(allowed)})"
        elif value == "???":
            yield f"{where}.{key} must be given: add {where}.{key}=<value>"
        elif problem := _type_problem(parameters[key], value):
            yield f"{where}.{key}={value}: {problem}"
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in given and key not in GIVEN and not node.get("_partial_"):
            yield f"{where} needs {key!r}: add {where}.{key}=<value>"


def call_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a call; a class that passes `**options` on also has those of its base classes."""
    found: dict[str, inspect.Parameter] = {}
    layers = [c.__init__ for c in target.__mro__] if inspect.isclass(target) else [target]
    for layer in layers:
        kinds = list(inspect.signature(layer).parameters.values())
        for parameter in kinds:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name != "self":
                # what only a base class demands, the class itself may give it
                known = parameter if layer is layers[0] else parameter.replace(default=None)
                found.setdefault(parameter.name, known)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in kinds):
            return found
    return found


def _type_problem(parameter: inspect.Parameter, value: Any) -> str | None:
    """What is wrong with a plain value where the signature says which plain types it takes; None if nothing is."""
    allowed = _plain_types(parameter.annotation)
    if not allowed or (value is None and parameter.default is None):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        fits = bool(allowed & {int, float})
    elif isinstance(value, (list, dict)):
        fits = not allowed <= PLAIN.keys() | {type(None)}
    else:
        fits = type(value) in allowed
    if fits:
        return None
    return "this must be " + " or ".join(words for plain, words in PLAIN.items() if plain in allowed)


def _plain_types(annotation: Any) -> set[type]:
    """The types an annotation names, if all of them are classes and at least one is a plain one; else nothing."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = set(typing.get_args(annotation))
    else:
        options = {annotation}
    if annotation is inspect.Parameter.empty or not all(isinstance(option, type) for option in options):
        return set()
    return options if options & PLAIN.keys() else set()
