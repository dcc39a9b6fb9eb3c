"""A setting of an entry point stands in one place: a dataclass field with its default, help and allowed values.

The default in the config, the lines of `--help` and the check before torch is loaded all follow from that field.
The check is by hand, because OmegaConf knows types but neither bounds nor lists of allowed texts.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, get_args

from omegaconf import MISSING, DictConfig, OmegaConf

from headstart.errors import UsageError, nearest

HELP_WIDTH, HELP_COLUMN = 80, 28


@dataclass(frozen=True)
class Setting:
    """What a person must know about a setting.

    Attributes:
        help: its meaning in a few words, without a full stop.
        example: the value that `--help` shows; None: the default.
        choices: all values that are allowed besides null; empty: any value of its type.
        at_least, at_most, above: bounds of a number.
    """

    help: str
    example: str | None = None
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None


def setting(default: Any, help: str, **rules: Any) -> Any:
    """A dataclass field that describes itself; `rules` are the other attributes of `Setting`."""
    return field(default=default, metadata={"setting": Setting(help, **rules)})


def settings_of(schema: type, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """The dotted name and the field of each setting of a dataclass and of the dataclasses in it."""
    for each in fields(schema):
        if is_dataclass(each.type):
            yield from settings_of(each.type, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", each


def check_settings(cfg: DictConfig) -> None:
    """Compares a config with the fields of the dataclass that Hydra composed it from.

    Raises:
        UsageError: a setting that must be given is missing, or a value is not allowed.
    """
    known = list(settings_of(OmegaConf.get_type(cfg)))
    missing = [(name, each) for name, each in known if OmegaConf.is_missing(cfg, name)]
    if missing:
        names = " and ".join(_assignment(name, each) for name, each in missing)
        raise UsageError(f"add {names}\n{_help_lines(missing)}")
    for name, each in known:
        value = OmegaConf.select(cfg, name)
        if value is not None and (problem := _problem(value, each)):
            raise UsageError(f"{name}={value}{problem}")


def settings_help(schema: type) -> str:
    """The lines of `--help` about the settings of a dataclass; those that must be given come first."""
    return _help_lines(sorted(settings_of(schema), key=lambda named: named[1].default is not MISSING))


def _problem(value: Any, each: Field) -> str | None:
    """The end of the sentence that refuses a value; None if the value is allowed."""
    rules = each.metadata["setting"]
    if rules.choices and value not in rules.choices:
        return f"{nearest(str(value), rules.choices)}: choose one of {', '.join(rules.choices)}"
    number = "a number" if float in (each.type, *get_args(each.type)) else "a whole number"
    if rules.at_most is not None and not rules.at_least <= value <= rules.at_most:
        return f": give {number} from {rules.at_least} to {rules.at_most}"
    if rules.at_least is not None and value < rules.at_least:
        return f": give {number} of at least {rules.at_least}"
    if rules.above is not None and value <= rules.above:
        return f": give {number} above {rules.above}"
    return None


def _help_lines(named: list[tuple[str, Field]]) -> str:
    return "\n".join(_help_of(name, each) for name, each in named)


def _help_of(name: str, each: Field) -> str:
    rules = each.metadata["setting"]
    words = f"{rules.help} ({', '.join(rules.choices)})" if rules.choices else rules.help
    words += "; off by default" if each.default is False else ""
    left = f"  {_assignment(name, each)} ".ljust(HELP_COLUMN)
    return textwrap.fill(
        words, HELP_WIDTH, initial_indent=left, subsequent_indent=" " * HELP_COLUMN, break_on_hyphens=False
    )


def _assignment(name: str, each: Field) -> str:
    """`name=value` as a person would type it."""
    example = each.metadata["setting"].example
    if example is None:  # a switch is shown as it is typed to turn it on
        example = "true" if each.default is False else each.default
    return f"{name}={example}"
