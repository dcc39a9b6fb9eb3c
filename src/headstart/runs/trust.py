"""What may be built from a file that somebody sent: the list, and the check of a saved config against it.

Checkpoints and run directories hold a config, and its `_target_` entries name what is built from it. Anything could
stand there, such as a function that runs commands. So every saved config is checked when it is read, before anything
is built: each section may name only what belongs there. `HEADSTART_TRUST=<name>,<module>` adds names and whole modules.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.errors import UsageError, printable

PACKAGE = Path(__file__).parents[1]

OUR_CLASSES = {
    "model": "backbones",
    "head": "heads",
    "task": "tasks",
    "data": "datasets",
    "finetuning": "finetuning",
    "mixing": "inputs",
    "preprocess": "inputs",
    "cache": "caching",
    "callbacks": "callbacks",
    "logger": "callbacks",
}
"""Section of a config -> folder of this package whose classes it may name."""

OUR_FUNCTIONS = {
    "augmentation": r"headstart\.inputs\.\w+\.augmentation",
    "test_time": r"headstart\.inputs\.\w+\.mirror",
    "scheduler": r"headstart\.optim\.schedulers",
}
"""Section of a config -> modules of this package, as a pattern, whose functions it may name."""

LIBRARIES = {
    "optimizer": ("torch.optim",),
    "scheduler": ("torch.optim.lr_scheduler",),
    "augmentation": ("torchvision.transforms.v2",),
    "callbacks": ("pytorch_lightning.callbacks",),
    "logger": ("pytorch_lightning.loggers",),
    "trainer": ("pytorch_lightning", "pytorch_lightning.strategies", "pytorch_lightning.profilers"),
}
"""Section of a config -> modules of libraries; it may name the classes that these define themselves."""

CALL_ANYTHING = ("Lambda", "LambdaCallback", "LambdaLR", "MultiplicativeLR")
"""Classes of these libraries that only call a function which they are given."""

RESOLVERS = ("best_is", "direction", "no_mistake", "unless")
"""Functions that a value may call, as `${name:${setting}}`. None of them reads anything outside the config."""

REFERENCES = re.compile(
    r"\$\{(?:[A-Za-z_][\w.]*|oc\.select:[A-Za-z_][\w.]*|(?:" + "|".join(RESOLVERS) + r"):\0)\}", re.ASCII
)
"""What a value may refer to: another setting, or one of the functions of it (`\\0`: a reference that was found before).

The grammar of OmegaConf is larger: a default of `oc.select` may hold a whole section, a name may be computed.
"""

WHOLE_VALUES = ("${oc.env:MLFLOW_TRACKING_URI,'sqlite:///${paths.logs}/mlflow.db'}",)
"""Values of our own files that no pattern covers."""

CLASS = re.compile(r"^class (\w+)", re.M)

TRUST = "HEADSTART_TRUST"


def check_config(config: dict[str, Any]) -> None:
    """Refuses a saved config that names something else than what belongs into a config.

    Args:
        config: plain data, interpolations not resolved.

    Raises:
        UsageError: the message names the place and the value.
    """
    for section, content in config.items():
        check_section(str(section), content, config)


def check_section(section: str, content: Any, config: dict[str, Any] | None = None) -> None:
    """Checks one section of a config, such as `model`, or the `preprocess` of a checkpoint.

    Args:
        section: its name.
        content: plain data, interpolations not resolved.
        config: the whole config, to which values may refer; None: they may not.

    Raises:
        UsageError: as `check_config`.
    """
    for place, key, value in entries(section, content):
        if key == "_target_" and not is_buildable(section, value):
            raise UsageError(
                f"REFUSED: the saved config would build {shown(value)} at {place}, which is not allowed there. "
                f"Nothing was run. If it is a part of your own package, set {TRUST} (CONTRIBUTING.md)"
            )
        for text in (key, value):
            if isinstance(text, str) and not _is_harmless(text, config):
                raise UsageError(
                    f"REFUSED: the saved config computes a value at {place}: {shown(text)}. A saved config may only "
                    f"refer to its own settings, directly or by {', '.join(RESOLVERS)}. Nothing was run. Do not use a "
                    "file like this"
                )


def is_buildable(section: str, target: Any) -> bool:
    """Whether a section of a saved config may name this class or function."""
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        return False
    module, _, name = target.rpartition(".")
    if name.startswith("_"):
        return False
    if is_trusted(target):
        return True
    if module in LIBRARIES.get(section, ()):
        return name not in CALL_ANYTHING and name in _classes_of(module)
    folder = OUR_CLASSES.get(section)
    if folder and module.startswith(f"headstart.{folder}."):
        return _defines(module, "class", name)
    return re.fullmatch(OUR_FUNCTIONS.get(section, ""), module) is not None and _defines(module, "def", name)


def is_trusted(target: str) -> bool:
    """Whether the person has named this class, its module, or `places` in `HEADSTART_TRUST`."""
    names = [name.strip() for name in os.environ.get(TRUST, "").split(",")]
    return any(name and f"{target}.".startswith(f"{name}.") for name in names)


def _defines(module: str, kind: str, name: str) -> bool:
    """Whether a module of this package defines the name itself: what it imports does not count. Imports nothing."""
    file = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return file.is_file() and re.search(rf"^{kind} {name}\b", file.read_text(encoding="utf-8"), re.M) is not None


@cache
def _classes_of(module: str) -> frozenset[str]:
    """The classes that a module of a library, or for a package all its modules, defines itself. Imports nothing."""
    library, *inside = module.split(".")
    spec = find_spec(library)  # of a module in a package, this would import the package
    if spec is None or spec.origin is None:
        return frozenset()
    folder = Path(spec.origin).parent.joinpath(*inside)
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    return frozenset(name for file in files for name in CLASS.findall(file.read_text(encoding="utf-8")))


def entries(place: str, node: Any) -> Iterator[tuple[str, Any, Any]]:
    """The place, the key and the value of everything in a tree."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{place}.{key}", key, value
            yield from entries(f"{place}.{key}", value)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield f"{place}[{index}]", None, value
            yield from entries(f"{place}[{index}]", value)
    else:
        yield place, None, node


def _is_harmless(text: str, config: dict[str, Any] | None) -> bool:
    """Whether a text has no interpolation, or only references to plain values of the config."""
    if "${" not in text or text in WHOLE_VALUES:
        return True
    for name in re.findall(r"\$\{(?:oc\.select:)?([A-Za-z_][\w.]*)\}", text, re.ASCII):
        # a whole section would be built elsewhere
        if config is None or isinstance(value_at(config, name), (dict, list)):
            return False
    rest = None
    while rest != text:
        rest, text = text, REFERENCES.sub("\0", text)
    return "${" not in text


def value_at(tree: Any, name: str) -> Any:
    """The value of a dotted name in plain data; None if there is none."""
    node = tree
    for key in name.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node


def shown(value: Any) -> str:
    """A value that may hold anything, short and on one line."""
    return printable(str(value)).replace("\n", "?")[:100]
