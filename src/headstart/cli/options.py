"""The options of training with their comments, from the files of `conf/`: what `--help` and the reference show.

By hand, because the YAML reader drops comments. It does tell where each value begins and ends, so the comments are
found in the lines around it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from headstart.cli.conf_files import CONF, choices_by_group, file_of

SETTERS = ("experiment", "debug", "hparams_search")
"""Groups whose files only give values to the options of other groups."""


@dataclass(frozen=True)
class Option:
    """One setting of a file.

    Attributes:
        name: as it is typed, such as `optimizer.lr`.
        default: as the file has it; `<value>` if it must be given, `<computed>` if a function computes it, empty for
            a part that has options of its own.
        comment: its meaning; empty if the file does not say it.
    """

    name: str
    default: str
    comment: str

    @property
    def assignment(self) -> str:
        """`name=default`."""
        return f"{self.name}={self.default}" if self.default else self.name


@dataclass(frozen=True)
class Choice:
    """One file of a group.

    Attributes:
        name: without the ending `.yaml`.
        description: the comment at its beginning, line by line.
        options: its own options and the options of the files that it is built on, without other groups.
    """

    name: str
    description: tuple[str, ...]
    options: tuple[Option, ...]

    @property
    def summary(self) -> str:
        """The first sentence of the description, without commands."""
        words = []
        for line in self.description:
            if line.startswith(" "):
                break
            words.append(line.strip())
        return re.split(r"(?<! al)\.(?:\s|$)", " ".join(words), maxsplit=1)[0].strip()


@dataclass(frozen=True)
class Group:
    """A folder of `conf/`.

    Attributes:
        name: of the folder.
        default: the choice if the command names none: from `conf/train.yaml`, or from its recipe.
        comment: the question that its files answer.
        choices: in alphabetical order.
    """

    name: str
    default: str
    comment: str
    choices: tuple[Choice, ...]

    def shared_by_all(self, holders: tuple[str, ...]) -> bool:
        """Whether all choices have an option, besides `none`, which has no options."""
        return {choice.name for choice in self.choices} - {"none"} <= set(holders)

    @property
    def options(self) -> list[tuple[Option, tuple[str, ...]]]:
        """Each option once, with the value of the default choice if that has it, and the choices that have it."""
        if self.name in SETTERS:
            return []
        ordered = sorted(self.choices, key=lambda choice: choice.name != self.default)
        found: dict[str, Option] = {}
        holders: dict[str, list[str]] = {}
        for choice in ordered:
            for option in choice.options:
                known = found.setdefault(option.name, option)
                if not known.comment:
                    found[option.name] = replace(known, comment=option.comment)
                holders.setdefault(option.name, []).append(choice.name)
        return [(option, tuple(sorted(holders[name]))) for name, option in found.items()]


def groups() -> list[Group]:
    """The groups in the order of `conf/train.yaml`."""
    file = CONF / "train.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    named = {key: node for key, node in _chosen(file) if not key.startswith("override ")}
    defaults = {key: node.value for key, node in named.items()}
    defaults |= _overridden("experiment", defaults["experiment"])
    return [_group(name, defaults[name], _inline_comment(node, lines)) for name, node in named.items()]


def _group(name: str, default: str, comment: str) -> Group:
    return Group(name, default, comment, tuple(choice(name, each) for each in choices_by_group()[name]))


def _chosen(file: Path) -> Iterator[tuple[str, yaml.Node]]:
    """The pairs in the defaults of a file, such as `model` and `resnet50`, or `override /model` and `resnet50`."""
    defaults = _value_of(_root(file), "defaults")
    for node in defaults.value if defaults else ():
        if isinstance(node, yaml.MappingNode):
            key, value = node.value[0]
            yield key.value, value


def _overridden(group: str, name: str) -> dict[str, str]:
    """The choices that a file makes in other groups, and those that these make."""
    found: dict[str, str] = {}
    for key, node in _chosen(file_of(group, name)):
        other = key.removeprefix("override /")
        found |= {other: node.value} | _overridden(other, node.value)
    return found


def run_options() -> list[Option]:
    """The options of `conf/train.yaml` itself."""
    return [option for option in _options(CONF / "train.yaml", "") if not option.name.startswith("hydra.")]


@cache
def choice(group: str, name: str) -> Choice:
    """A file of a group, read with the files that it is built on."""
    file = file_of(group, name)
    text = file.read_text(encoding="utf-8")
    is_global = "# @package _global_" in text
    options: dict[str, Option] = {}
    for base in _built_on(file):
        options |= {option.name: option for option in choice(group, base).options}
    for option in _options(file, "" if is_global else f"{group}."):
        if option.name.startswith(f"{group}."):
            known = options.get(option.name)
            options[option.name] = option if option.comment or not known else replace(option, comment=known.comment)
    return Choice(name, tuple(_header(text)), tuple(options.values()))


def _root(file: Path) -> yaml.MappingNode:
    return yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)


def _value_of(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for each, value in node.value if each.value == key), None)


def _built_on(file: Path) -> list[str]:
    """The files of the same group in the defaults of a file."""
    defaults = _value_of(_root(file), "defaults")
    names = [node.value for node in defaults.value if isinstance(node, yaml.ScalarNode)] if defaults else []
    return [name.partition("@")[0] for name in names if name != "_self_"]


def _header(text: str) -> Iterator[str]:
    """The comment at the beginning of a file, up to the first line that is none."""
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        if not line.startswith("# @package"):
            yield line[1:].removeprefix(" ").rstrip()


def _options(file: Path, prefix: str) -> Iterator[Option]:
    lines = file.read_text(encoding="utf-8").splitlines()
    top = next((number for number, line in enumerate(lines) if not line.startswith("#")), 0)
    for option in _options_in(_root(file), lines, top, prefix):
        follows_another = re.fullmatch(r"\$\{[\w.]+\}", option.default)
        if option.comment or (not follows_another and option.default):
            yield option


def _options_in(node: yaml.MappingNode, lines: list[str], top: int, prefix: str) -> Iterator[Option]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if key.value == "defaults" or key.value.startswith("_"):
            continue
        above = _comment_above(key.start_mark.line, lines, top)
        if isinstance(value, yaml.MappingNode) and value.value:
            yield Option(name, "", _joined(above, _inline_comment(key, lines)))
            yield from _options_in(value, lines, top, f"{name}.")
        else:
            yield Option(name, _default(value, lines), _joined(above, _inline_comment(value, lines)))


def _joined(*comments: str) -> str:
    return "; ".join(filter(None, comments))


def _comment_above(line: int, lines: list[str], top: int) -> str:
    """The lines of comment directly above a line, with its indentation, without the header of the file."""
    words: list[str] = []
    indent = re.match(r" *", lines[line])[0]
    while (line := line - 1) >= top and lines[line].startswith(f"{indent}#"):
        words.insert(0, lines[line].strip("# "))
    return " ".join(words)


def _inline_comment(node: yaml.Node, lines: list[str]) -> str:
    rest = lines[node.end_mark.line][node.end_mark.column :] if node.end_mark.line < len(lines) else ""
    return rest.partition("#")[2].strip()


def _default(value: yaml.Node, lines: list[str]) -> str:
    if isinstance(value, yaml.ScalarNode):
        text = value.value
    else:
        text = lines[value.start_mark.line][value.start_mark.column : value.end_mark.column]
    if text == "???":
        return "<value>"
    text = re.sub(r"\$\{oc\.env:\w+,(?:'([^']*)'|([^}']*))\}", r"\1\2", text)
    return "<computed>" if re.search(r"\$\{\w+[.\w]*:", text) else text or "''"
