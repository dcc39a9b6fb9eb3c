"""What a `_target_` takes, read from its source file: importing torch and Lightning to refuse a typo takes seconds."""

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from inspect import Parameter
from pathlib import Path
from typing import Any, Optional, Union

Definition = ast.ClassDef | ast.FunctionDef
# What annotations are made of, as far as a command line goes; Tensor, half of torch's signatures name it, is a class
TYPES = {kind.__name__: kind for kind in (bool, dict, float, int, list, str, tuple)} | {
    "Any": Any, "Optional": Optional, "Tensor": type("Tensor", (), {}), "Union": Union,
}  # fmt: skip


class Unreadable(Exception):  # noqa: N818 - no error: importing will tell
    """The source alone does not say."""


def read_parameters(target: str) -> dict[str, Parameter]:
    """The named parameters of a call of `target`: what `config.call_parameters` finds in the imported one.

    Annotations are those of plain types; defaults that are no constants are `...`.

    Raises:
        Unreadable: there is no such class or function, or what it takes is decided when its module runs.
    """
    module, node = _locate(target)
    layers = _constructors(module, node) if isinstance(node, ast.ClassDef) else iter([(module, node)])
    found: dict[str, Parameter] = {}
    for depth, (where, function) in enumerate(layers):
        for parameter in _named_parameters(where, function):
            # what only a base class demands, the class itself may give it
            found.setdefault(parameter.name, parameter.replace(default=None) if depth else parameter)
        if function.args.kwarg is None:
            break
    return found


def _locate(dotted: str) -> tuple[str, Definition]:
    """The class or function of this name, with the module it stands in; imports on the way are followed."""
    module, _, name = dotted.rpartition(".")
    if _spec(module):
        bound = _names(module).get(name)
    else:  # no module, but what one calls it: the `pl` of `pl.Callback`
        outer, _, inner = module.rpartition(".")
        alias = _names(outer).get(inner)
        bound = f"{alias}.{name}" if isinstance(alias, str) else None
    if bound in (None, dotted):
        raise Unreadable(dotted)
    return _locate(bound) if isinstance(bound, str) else (module, bound)


@cache
def _names(module: str) -> dict[str, Definition | str | None]:
    """What the top level of a module binds: definitions, dotted names of what it imports, None for anything else."""
    spec, names = _spec(module), {}
    try:
        statements = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    except (AttributeError, OSError, SyntaxError, TypeError, ValueError) as error:
        raise Unreadable(module) from error
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    for statement in statements:
        if isinstance(statement, Definition):
            names[statement.name] = statement
        elif isinstance(statement, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
            names |= {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in statement.names}
        elif isinstance(statement, ast.Assign | ast.Delete):
            names |= dict.fromkeys(map(ast.unparse, statement.targets))
    return names


@cache
def _spec(module: str) -> ModuleSpec | None:
    """Where a module is, without running the packages around it; None when there is no such module."""
    package = module.rpartition(".")[0]
    if not package:
        return importlib.util.find_spec(module) if module else None
    around = _spec(package)
    folders = around and around.submodule_search_locations
    return PathFinder.find_spec(module, folders) if folders else None


def _constructors(module: str, node: Definition) -> Iterator[tuple[str, ast.FunctionDef]]:
    """`__init__` of a class and then of its base classes, depth first."""
    if node.decorator_list or isinstance(node, ast.FunctionDef):  # a dataclass, perhaps
        raise Unreadable(node.name)
    yield from ((module, part) for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
    for base in map(ast.unparse, node.bases):
        if base not in ("ABC", "object"):
            yield from _constructors(*_locate(f"{module}.{base}"))


def _named_parameters(module: str, function: ast.FunctionDef) -> Iterator[Parameter]:
    decorators = (_locate(f"{module}.{ast.unparse(decorator)}")[1] for decorator in function.decorator_list)
    if function.args.posonlyargs or not all("@wraps(" in ast.unparse(decorator) for decorator in decorators):
        raise Unreadable(function.name)
    typed = "annotations" not in _names(module)  # of the __future__: they are texts when imported, too
    given = function.args.args
    absent = [None] * (len(given) - len(function.args.defaults))
    defaults = [*absent, *function.args.defaults, *function.args.kw_defaults]
    for argument, default in zip(given + function.args.kwonlyargs, defaults, strict=True):
        if argument.arg != "self":
            annotation = _annotation(argument.annotation) if typed else Parameter.empty
            constant = default.value if isinstance(default, ast.Constant) else ...
            value = Parameter.empty if default is None else constant
            yield Parameter(argument.arg, Parameter.KEYWORD_ONLY, default=value, annotation=annotation)


def _annotation(node: ast.expr | None) -> Any:
    try:
        return eval(ast.unparse(node), {"__builtins__": {}}, TYPES) if node else Parameter.empty
    except Exception:  # a name that may be anything
        return Parameter.empty
