"""The one exception that is shown to a person without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A mistake that whoever typed the command can mend.

    The message names what was given, what is allowed and what to type. Entry points print it alone and exit with 2.
    """


def nearest(given: str, allowed: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the allowed name closest to `given`, or an empty string when none is close."""
    matches = get_close_matches(given, [str(name) for name in allowed], n=1, cutoff=0.6)
    return f", did you mean '{matches[0]}'?" if matches else ""
