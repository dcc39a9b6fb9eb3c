"""`--help` of training: the options with their comments from `conf/`, all of them or one group."""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from headstart.cli.options import SETTERS, Group, Option, groups, run_options
from headstart.cli.settings import HELP_COLUMN, HELP_WIDTH
from headstart.errors import UsageError, nearest

HELP_WORDS = ("--help", "-h")
MOST_USED = {
    "data": "image_folder",
    "data.root": "my/pictures",
    "model": "resnet50",
    "finetuning": "probe",
    "trainer.max_time": "10m",
    "trainer.max_epochs": "20",
    "optimizer.lr": "1e-3",
    "data.batch_size": "16",
    "model.image_size": "128",
    "seed": "1",
}
"""The ten options that are used most -> an example; their comments come from `conf/`."""
EXAMPLES = """\
Headstart: transfer learning from one readable command.

  # your own pictures, in a folder for each class; settings chosen by the data
  python src/train.py model=resnet50 data=image_folder data.root=my/pictures
  # a strategy of your choice instead
  python src/train.py finetuning=full model=resnet50 data=cats_dogs
  # all combinations, and a table at the end
  python src/train.py -m seed=0,1,2 model=resnet18,resnet50 data=cats_dogs
  # continue the run that was interrupted last
  python src/train.py resume=last
  # the demonstration: handwritten digits, offline
  python src/train.py experiment=letters_to_digits
"""
END = """\
One group alone, with what each choice means, or one option:
  python src/train.py --help finetuning
  python src/train.py --help optimizer.lr
The values of a command, without running it: --cfg job --resolve
"""
MANY_HOLDERS = 6
"""An option that more choices have is not followed by their names."""


def asked_for(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return any(word in HELP_WORDS for word in arguments)


def train_help(arguments: Sequence[str]) -> str:
    """The help that a command line asks for: of the groups and options that it names, or of all.

    Raises:
        UsageError: there is no such group or option.
    """
    words = [word.lstrip("+~").partition("=")[0] for word in arguments if not word.startswith("-")]
    return "\n".join(_of(word) for word in words) if words else _of_all()


def answering_help(main: Callable[[], Any]) -> Callable[[], Any]:
    """The main function, except that it prints the help if the command line asks for it: Hydra's knows no comments."""
    return lambda: print_help(sys.argv[1:]) if asked_for(sys.argv[1:]) else main()


def print_help(arguments: Sequence[str]) -> None:
    """Prints the help; names are bold in a terminal that has colours."""
    text = train_help(arguments)
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        text = re.sub(r"^( {2}(?=\S)(?!#|python )[^\s=]+|\S[^\n]*:)(?=[ =\n])", "\033[1m\\1\033[0m", text, flags=re.M)
    sys.stdout.write(text)


def _of_all() -> str:
    found = groups()
    comments = comments_by_name(found)
    used = [_row(f"{name}={example}", comments[name]) for name, example in MOST_USED.items()]
    parts = [EXAMPLES, "\nUsed most, with an example:\n", *used, "\nThe run (option=default):\n"]
    parts += [_row(option.assignment, option.comment) for option in run_options()]
    for group in found:
        parts += ["\n", _heading(group), _filled(", ".join(choice.name for choice in group.choices)), *_options(group)]
    return "".join([*parts, "\n", END])


def _of(word: str) -> str:
    found = groups()
    for group in found:
        if group.name == word:
            return _of_group(group)
    options = {option.name: option for option in run_options()}
    options |= {option.name: option for group in found for option, _ in group.options}
    if word not in options:
        raise UsageError(
            f"--help {word}: there is no such group or option{nearest(word, [*comments_by_name(found), *options])}"
        )
    return _row(options[word].assignment, options[word].comment)


def _of_group(group: Group) -> str:
    choices = [_row(choice.name, choice.summary) for choice in group.choices]
    options = list(_options(group))
    setters = f"\nThe settings of each: conf/{group.name}/<choice>.yaml\n" if group.name in SETTERS else ""
    return "".join([_heading(group), *choices, "\nOptions (option=default):\n" if options else "", *options, setters])


def _heading(group: Group) -> str:
    default = f"; {group.name}={group.default} by default" if group.default != "null" else ""
    return _filled(f"{group.name}: {group.comment}{default}", 2, "")


def _options(group: Group) -> Iterator[str]:
    for option, holders in group.options:
        yield _row(option.assignment, _with_holders(option, holders, group))


def _with_holders(option: Option, holders: tuple[str, ...], group: Group) -> str:
    if group.shared_by_all(holders) or len(holders) > MANY_HOLDERS:
        return option.comment
    return f"{option.comment} ({', '.join(holders)})"


def comments_by_name(found: list[Group]) -> dict[str, str]:
    """The comment of each group and option; the one of `data.root` is about a folder of pictures."""
    comments = {option.name: option.comment for option in run_options()}
    for group in found:
        comments[group.name] = f"{group.comment}; --help {group.name} lists them"
        comments |= {option.name: option.comment for option, _ in group.options}
        if group.name == "data":
            pictures = next(choice for choice in group.choices if choice.name == MOST_USED["data"])
            comments |= {option.name: option.comment for option in pictures.options}
    return comments


def _row(left: str, words: str) -> str:
    """The words beside `left`, or below it if it is too long."""
    left = f"  {left} "
    if len(left) > HELP_COLUMN:
        return f"{left.rstrip()}\n{_filled(words, HELP_COLUMN)}"
    return _filled(words, HELP_COLUMN, left.ljust(HELP_COLUMN))


def _filled(words: str, indent: int = 2, first: str | None = None) -> str:
    filled = textwrap.fill(
        words, HELP_WIDTH, initial_indent=" " * indent if first is None else first, subsequent_indent=" " * indent,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
    return f"{filled}\n"
