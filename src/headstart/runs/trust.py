"""What may be built from a file that somebody sent: the list, and the check of a saved config against it.

Checkpoints and run directories hold a config, and its `_target_` entries name what is built from it. Anything could
stand there, such as a function that runs commands. So every saved config is checked when it is read, before anything
is built: each section may name only what belongs there. `HEADSTART_TRUST=<name>,<module>` adds names and whole modules.
"""

import os
import re
from collections.abc import Iterator
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
"""Section of a config -> modules of libraries whose classes it may name."""

RESOLVERS = ("best_is", "direction", "no_mistake", "oc.select", "unless")
"""Functions that a value may call, as `${name:...}`. None of them reads anything outside the config."""

VARIABLES = ("MLFLOW_TRACKING_URI",)
"""Environment variables that a value may read, as `${oc.env:NAME}`."""

TRUST = "HEADSTART_TRUST"


def check_config(config: dict[str, Any]) -> None:
    """Refuses a saved config that names something else than what belongs into a config.

    Args:
        config: plain data, interpolations not resolved.

    Raises:
        UsageError: the message names the place and the value.
    """
    for section, content in config.items():
        check_section(str(section), content)


def check_section(section: str, content: Any) -> None:
    """Checks one section of a config, such as `model`, or the `preprocess` of a checkpoint.

    Raises:
        UsageError: as `check_config`.
    """
    for place, key, value in _entries(section, content):
        if key == "_target_" and not is_buildable(section, value):
            raise UsageError(
                f"REFUSED: the saved config would build {_shown(value)} at {place}, which does not belong there. "
                f"Nothing was run. Only if you know who made the file and trust them, type {TRUST}={_shown(value)} "
                "before the command"
            )
        for text in (key, value):
            if isinstance(text, str) and (function := _foreign_function(text)):
                raise UsageError(
                    f"REFUSED: the saved config calls {_shown(function)} at {place}; a saved config may call only "
                    f"{', '.join(RESOLVERS)}. Nothing was run. Do not use a file like this"
                )


def is_buildable(section: str, target: Any) -> bool:
    """Whether a section of a saved config may name this class or function."""
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        return False
    module, _, name = target.rpartition(".")
    if module in LIBRARIES.get(section, ()):
        return name[0].isupper()
    if _is_trusted(target):
        return True
    folder = OUR_CLASSES.get(section)
    if folder and module.startswith(f"headstart.{folder}."):
        return _defines(module, "class", name)
    return re.fullmatch(OUR_FUNCTIONS.get(section, ""), module) is not None and _defines(module, "def", name)


def _is_trusted(target: str) -> bool:
    names = [name.strip() for name in os.environ.get(TRUST, "").split(",")]
    return any(name and f"{target}.".startswith(f"{name}.") for name in names)


def _defines(module: str, kind: str, name: str) -> bool:
    """Whether a module of this package defines the name itself: what it imports does not count. Imports nothing."""
    file = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return file.is_file() and re.search(rf"^{kind} {name}\b", file.read_text(encoding="utf-8"), re.M) is not None


def _entries(place: str, node: Any) -> Iterator[tuple[str, Any, Any]]:
    """The place, the key and the value of everything in a tree."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{place}.{key}", key, value
            yield from _entries(f"{place}.{key}", value)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield f"{place}[{index}]", None, value
            yield from _entries(f"{place}[{index}]", value)
    else:
        yield place, None, node


def _foreign_function(text: str) -> str | None:
    """The first function that a value calls and that is not on the list."""
    for name, argument in re.findall(r"\$\{\s*([^${}:]*?)\s*:\s*(\w*)", text):
        if name not in RESOLVERS and not (name == "oc.env" and argument in VARIABLES):
            return name
    return None


def _shown(value: Any) -> str:
    """A value that may hold anything, short and on one line."""
    return printable(str(value)).replace("\n", "?")[:100]
