"""The exceptions that are shown without a traceback, and the words of messages."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UsageError(ValueError):
    """A mistake that the person who typed the command can correct.

    The message names the given value, the allowed values and the words to type. Entry points print only the message and
    exit with code 2.
    """


class Failure(Exception):  # noqa: N818 - Python's names for errors tell what a program did wrong; here none did
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
def settings_of(section: str) -> Iterator[None]:
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


def printable(text: str) -> str:
    """Text for a terminal: control characters in names of files and classes become `?`; line breaks and tabs stay."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
