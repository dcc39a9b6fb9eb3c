"""The exceptions that are shown without a traceback, and the words of messages."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class UsageError(ValueError):
    """A mistake that the person who typed the command can correct.

    The message names the given value, the allowed values and the words to type. Entry points print only the message and
    exit with code 2.
    """


class Failure(Exception):  # noqa: N818 - not an error in the code
    """Something went wrong, but neither the command nor the code is at fault.

    Entry points print only the message and exit with code 1.
    """


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its causes; stops if they form a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def as_usage_error(section: str) -> Iterator[None]:
    """Names the section of the config whose settings a library refuses when it builds an object.

    Raises:
        UsageError: in place of a ValueError or TypeError.
    """
    try:
        yield
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(f"{section}: {error}") from error


def nearest(given: str, allowed: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the allowed name closest to `given`, or an empty string when none is close."""
    matches = get_close_matches(given, [str(name) for name in allowed], n=1, cutoff=0.6)
    return f", did you mean '{matches[0]}'?" if matches else ""


_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # all control characters, except line breaks and tabs
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # separators of lines and paragraphs; changes of the writing direction
    "\ud800-\udfff]"  # bytes of file names that are not valid text
)


def nearest_path(path: Path) -> str:
    """As `nearest`, for a path that does not exist: the closest name in its parent folder."""
    beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    return nearest(path.name, beside)


def printable(text: str) -> str:
    """Text for a terminal: control characters in names of files and classes become `?`; line breaks and tabs stay.

    Spaces of all kinds and the invisible joiners between letters stay: some languages need them.
    """
    return _CONTROLS.sub("?", text)


def counted(number: int, noun: str) -> str:
    """The number and its noun: `1 picture`, `1,200 pictures`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration_in_words(seconds: float) -> str:
    """A length of time, such as `1 h 30 min`, `42 s` or `0.4 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    whole = round(seconds)
    parts = [(whole // 3600, "h"), (whole // 60 % 60, "min"), (whole % 60 if whole < 600 else 0, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def listed(names: Sequence[str], limit: int = 10) -> str:
    """The names in quotes for a message: at most `limit` of them, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
