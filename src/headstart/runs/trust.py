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

from omegaconf import DictConfig, OmegaConf

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
    for place, key, value in _entries(section, content):
        if key == "_target_" and not is_buildable(section, value):
            raise UsageError(
                f"REFUSED: the saved config would build {_shown(value)} at {place}, which is not allowed there. "
                f"Nothing was run. If it is a part of your own package, set {TRUST} (CONTRIBUTING.md)"
            )
        for text in (key, value):
            if isinstance(text, str) and not _is_harmless(text, config):
                raise UsageError(
                    f"REFUSED: the saved config computes a value at {place}: {_shown(text)}. A saved config may only "
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
    if _is_trusted(target):
        return True
    if module in LIBRARIES.get(section, ()):
        return name not in CALL_ANYTHING and name in _classes_of(module)
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


PLACES = ("dirpath", "folder", "file", "save_dir", "split_file", "default_root_dir", "tracking_uri", "nvme_path")
"""Settings that say where something is written, or to which server it is sent."""

NAMES = {
    "callbacks": ("filename",),
    "logger": ("name", "version", "sub_dir"),
    "trainer": ("filename",),
}
"""Section -> settings with a part of a path, in a folder that another setting names."""

LOGGER_SETTINGS = {
    *("_target_", "save_dir", "name", "version", "sub_dir", "tracking_uri", "project", "experiment_name", "run_name"),
    *("prefix", "default_hp_metric", "log_graph", "flush_logs_every_n_steps", "group", "tags", "notes", "offline"),
    *("entity", "id", "mode", "job_type", "resume", "anonymous", "flush_secs", "max_queue", "run_id", "synchronous"),
}
"""Settings of a saved logger; there are more, which send files or write them elsewhere."""

CACHES = {"cache": "root", "data": "cache"}
"""Section -> setting with a folder of results that every run of this machine may use."""


def check_places(config: DictConfig, run: Path, typed: DictConfig) -> None:
    """Refuses a saved config that would write outside the directory of its run.

    Args:
        config: with the paths of this machine.
        run: the directory.
        typed: the config of this command line; places that it names, too, are allowed.

    Raises:
        UsageError: the message names the place and the value.
    """
    if _is_trusted("places"):
        return
    plain = OmegaConf.to_container(config)
    loggers = plain.get("logger") or {}
    for name, settings in loggers.items() if isinstance(loggers, dict) else [("", loggers)]:
        unknown = sorted(map(str, set(settings) - LOGGER_SETTINGS)) if isinstance(settings, dict) else [name]
        if unknown and OmegaConf.select(typed, f"logger.{name}") != OmegaConf.select(config, f"logger.{name}"):
            raise UsageError(
                f"REFUSED: the saved config has a logger with {_shown(', '.join(unknown))} (logger.{_shown(name)}). "
                "It may send files to another place. If you have made this run yourself, type "
                f"{TRUST}=places before the command"
            )
    for section, content in plain.items():
        for place, key, written in _entries(str(section), content):
            is_cache, is_name = key == CACHES.get(section, ""), key in NAMES.get(section, ())
            if section == "paths" or not (is_cache or is_name or key in PLACES) or not isinstance(written, str):
                continue
            value = str(OmegaConf.select(config, place))
            climbs = is_name and ".." in re.split(r"[/\\]", value)  # out of a folder that may itself be a link
            if written in WHOLE_VALUES or value == str(OmegaConf.select(typed, place)):
                continue
            base = Path(config.paths.cache).expanduser() if is_cache else run
            if climbs or "://" in value or not _lies_in(base, base / value if is_name else Path(value).expanduser()):
                raise UsageError(
                    f"REFUSED: the saved config would write to {_shown(value)} ({place}), which is outside the run "
                    f"{run}. If you have made this run yourself, type {TRUST}=places before the command"
                )


def _lies_in(folder: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _is_log_of_wandb(path: Path) -> bool:
    """Whether this is the link to the log of its service that Weights & Biases makes; only that writes there."""
    return path.parts[-2:] == ("logs", "debug-core.log") and "wandb" in path.parts


def check_links(run: Path) -> None:
    """Refuses a run directory with links to other places, or with pipes and devices.

    What a command writes would end up elsewhere, and a pipe would be read for ever.

    Raises:
        UsageError: the message names the first of them.
    """
    if _is_trusted("places"):
        return
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and not _lies_in(run, path) and not _is_log_of_wandb(path.relative_to(run)):
                raise UsageError(
                    f"REFUSED: {_shown(path)} is a link to {_shown(os.path.realpath(path))}, which is outside the run, "
                    "and this command writes into the run. Replace the link with the files. If you have made this link "
                    f"yourself, type {TRUST}=places before the command, or set this environment variable"
                )
            if not (path.is_file() or path.is_dir() or path.is_symlink()):
                raise UsageError(f"REFUSED: {_shown(path)} is neither a file nor a folder. Remove it from the run")


def use_cache_of_this_machine(config: DictConfig) -> None:
    """Replaces the folders of caches in a saved config, which may be those of another machine, or anything else.

    Args:
        config: of a checkpoint, every value resolved.
    """
    folder = cache_of_this_machine()
    config.paths.cache = folder
    for part in (config.get("cache") or {}).values():
        if isinstance(part, DictConfig) and "root" in part:
            part.root = f"{folder}/stores"
    if config.data.get("cache") is not None:
        config.data.cache = folder


def cache_of_this_machine() -> str:
    """The folder of all caches, as `conf/paths/default.yaml` has it."""
    return os.environ.get("HEADSTART_CACHE", "~/.cache/headstart")


def _shown(value: Any) -> str:
    """A value that may hold anything, short and on one line."""
    return printable(str(value)).replace("\n", "?")[:100]
