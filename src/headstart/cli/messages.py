"""Explains an exception in a sentence: what was typed, what is allowed and what to type instead."""

import re
import shlex
from collections.abc import Iterator

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headstart.cli.conf_files import choices_by_group, file_of
from headstart.cli.overrides import compose_choices
from headstart.cli.usual_words import translations
from headstart.errors import UsageError, causes, nearest
from headstart.runs.hyperparameters import key_of

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)
# Beginnings of lines in Hydra's messages that do not help, or that mislead
UNHELPFUL_LINES = (
    "object_type=", "reference_type=", "full_key:", "To append", "Config search path", "provider=", "invalid literal",
)  # fmt: skip


def explain(error: BaseException, config_name: str, arguments: list[str]) -> str | None:
    """The message for the person who typed `arguments`; None if the fault is not theirs."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, UsageError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, OverrideParseException):
            return f"{cause.override}: {_in_quotes(cause.override)}"
    for cause in chain:
        if type(cause).__name__ == "MisconfigurationException":  # by name, because importing Lightning takes seconds
            return str(cause)
    if str(error).startswith("Config group override"):  # Hydra raises a bare ValueError for `scheduler=null`
        empty = [a for a in arguments if a.split("=", 1)[-1] in ("null", "") and "." not in key_of(a)]
        return _choose_instead(empty) if empty else str(error)
    plugin = re.search(r"Could not find 'hydra/(?:sweeper|launcher)/(\w+)'", str(error))
    if plugin:
        return f'{plugin[1]} is not installed: pip install -e ".[{plugin[1]}]"'
    missing = next((cause for cause in chain if isinstance(cause, ModuleNotFoundError)), None)
    if missing and isinstance(error, InstantiationException):
        return str(missing)
    if isinstance(error, CONFIG_ERRORS) and not _has_foreign_cause(chain):
        if config_name == "train" and (lines := list(translations(arguments))):
            return "\n  ".join(lines)
        return _helpful_lines(chain) + _suggestions(config_name, arguments)
    return None


def _choose_instead(empty: list[str]) -> str:
    """The answer to groups without a choice, such as `scheduler=null`."""
    group = key_of(empty[0])
    off = f"; {group}=none switches it off" if "none" in choices_by_group().get(group, []) else ""
    return f"{' '.join(empty)}: choose a file of conf/{group}{off}"


def _in_quotes(override: str) -> str:
    """The spelling of an override whose value has characters of Hydra's grammar in it."""
    key, equals, value = override.partition("=")
    if not equals:
        return "give a setting as key=value"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    quoted = shlex.quote(f'{key}="{escaped}"')
    return f"Hydra cannot read this value; in quotes of its own it is taken as it is: {quoted}"


def _has_foreign_cause(chain: list[BaseException]) -> bool:
    """Whether something other than the config system failed first, such as a constructor."""
    if any(isinstance(cause, InstantiationException) for cause in chain):
        return not all(isinstance(cause, CONFIG_ERRORS) for cause in chain)
    raised_by_config = (*CONFIG_ERRORS, AttributeError, KeyError, ValueError)
    return not all(isinstance(cause, raised_by_config) for cause in chain)


def _helpful_lines(chain: list[BaseException]) -> str:
    lines = dict.fromkeys(line.strip() for cause in chain for line in str(cause).splitlines() if line.strip())
    return "\n  ".join(line for line in lines if not line.startswith(UNHELPFUL_LINES) and "$VALUE" not in line)


def _suggestions(config_name: str, arguments: list[str]) -> str:
    """One line for each override whose choice or key does not exist, with the nearest one that does."""
    overrides = [word for word in arguments if not word.startswith(("-", "hydra"))]
    lines = list(_unknown_choices(overrides)) or list(_unknown_keys(config_name, overrides))
    return "".join(f"\n  {line}" for line in lines)


def _unknown_choices(overrides: list[str]) -> Iterator[str]:
    groups = choices_by_group()
    for override in overrides:
        group, _, names = override.partition("=")
        for name in names.split(",") if group in groups else ():
            if name not in [*groups[group], "null"] and not file_of(group, name).is_file():
                yield f"{override}: conf/{group} has no such file{nearest(name, groups[group])}"


def _unknown_keys(config_name: str, overrides: list[str]) -> Iterator[str]:
    groups = choices_by_group()
    keys = sorted(_known_keys(config_name, overrides) | set(groups))
    for override in overrides:
        key, value = key_of(override), override.partition("=")[2]
        if key not in keys:
            # a value that names a file of some group shows which group was meant
            meant = [group for group in groups if value in groups[group]]
            hint = nearest(key, meant) or nearest(key, keys)
            # a part of a library may take settings that our file does not show; Hydra adds them with a plus
            plus = f" (a setting that the file leaves out: +{override})" if "." in key and override[0] != "+" else ""
            yield f"{override}: there is no {key!r}{hint}{plus}"


def _known_keys(config_name: str, overrides: list[str]) -> set[str]:
    """Every dotted key of the config with the files that are chosen; in a sweep, without the choices that vary."""
    try:
        return set(_dotted_keys(compose_choices(config_name, [each for each in overrides if "," not in each])))
    except CONFIG_ERRORS:
        return set()


def _dotted_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):
            yield from _dotted_keys(node._get_node(key), f"{prefix}{key}.")
