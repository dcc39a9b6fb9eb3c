"""Compares each `_target_` of a config with the signature of what it names, before anything is built or downloaded.

By hand, because Hydra would find the mistakes one at a time, each only when it builds the part, after downloads.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from headstart.cli.quick_check import nodes, parts, plain_problems, refuse
from headstart.errors import nearest

GIVEN_BY_CODE = {
    *("backbone", "head", "optimizer", "scheduler", "mixing", "test_time", "monitor"),
    *("in_features", "num_outputs", "num_classes", "params", "preprocess"),
}
"""Arguments that our code gives when it builds a part; no config has them."""
TYPE_NAMES = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
"""The types that a command line can give, in words."""


def check_config(config: DictConfig) -> None:
    """Finds all mistakes in a config. Imports what the config names, so also torch and Lightning.

    Raises:
        UsageError: lists all mistakes at once, each with the nearest valid name.
    """
    refuse([*plain_problems(config), *(problem for name, node in parts(config) for problem in _problems(name, node))])


def _problems(name: str, part: Any) -> Iterator[str]:
    for where, node in nodes(name, part):
        if "_target_" in node:
            yield from _call_problems(where, node)


def _call_problems(where: str, node: dict[str, Any]) -> Iterator[str]:
    try:
        parameters = call_parameters(get_object(node["_target_"]))
    except Exception as error:
        yield f"{where}._target_={node['_target_']} cannot be imported: {error}"
        return
    given = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    for key, value in given.items():
        if key not in parameters:
            allowed = sorted(set(parameters) - GIVEN_BY_CODE)
            yield f"{where} takes no {key!r}{nearest(key, allowed)} ({node['_target_']} takes {', '.join(allowed)})"
        elif value != "???" and (problem := _type_problem(parameters[key], value)):
            yield f"{where}.{key}={value}: {problem}"
    if not node.get("_partial_"):
        for key, parameter in parameters.items():
            if parameter.default is parameter.empty and key not in given.keys() | GIVEN_BY_CODE:
                yield f"{where} needs {key!r}: add {where}.{key}=<value>"


def call_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a call; a class that passes `**options` on also has those of its base classes."""
    found: dict[str, inspect.Parameter] = {}
    layers = [c.__init__ for c in target.__mro__] if inspect.isclass(target) else [target]
    for layer in layers:
        kinds = list(inspect.signature(layer).parameters.values())
        for parameter in kinds:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name != "self":
                # the class itself may give what only its base class requires
                known = parameter if layer is layers[0] else parameter.replace(default=None)
                found.setdefault(parameter.name, known)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in kinds):
            return found
    return found


def _type_problem(parameter: inspect.Parameter, value: Any) -> str | None:
    """What a value must be, in words; None if it is allowed, or if the types are not known."""
    allowed = _plain_types(parameter.annotation)
    if not allowed or (value is None and parameter.default is None):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        fits = bool(allowed & {int, float})
    elif isinstance(value, (list, dict)):
        fits = not allowed <= TYPE_NAMES.keys() | {type(None)}
    else:
        fits = type(value) in allowed
    if fits:
        return None
    return "this must be " + " or ".join(words for plain, words in TYPE_NAMES.items() if plain in allowed)


def _plain_types(annotation: Any) -> set[type]:
    """The types that an annotation names, if all are classes and at least one is in `TYPE_NAMES`; else none."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = set(typing.get_args(annotation))
    else:
        options = {annotation}
    if annotation is inspect.Parameter.empty or not all(isinstance(option, type) for option in options):
        return set()
    return options if options & TYPE_NAMES.keys() else set()
