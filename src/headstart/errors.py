"""The one exception that is shown without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A mistake that the person who typed the command can correct.

    The message names the given value, the allowed values and the words to type. Entry points print only the message and
    exit with code 2.
    """


def nearest(given: str, allowed: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the allowed name closest to `given`, or an empty string when none is close."""
    matches = get_close_matches(given, [str(name) for name in allowed], n=1, cutoff=0.6)
    return f", did you mean '{matches[0]}'?" if matches else ""
