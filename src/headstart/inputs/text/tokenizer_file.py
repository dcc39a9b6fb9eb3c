"""Builds a tokenizer from the content of `tokenizer.json`, which may come from a stranger.

The file describes steps that the library `tokenizers` takes for each text. A small file could make each text grow until
it fills the memory, or search a pattern for hours. So the steps are checked before the library gets them.
"""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from headstart.errors import UsageError, printable
from headstart.files import no_key_twice

MOST_CHARACTERS = 50_000_000
"""Of the whole file; the largest ones of public models have 35 million."""
MOST_STEPS, LONGEST_SETTING = 200, 1000
"""Parts of all steps, and characters of a text in them."""
MOST_GROWTH = 50
"""How many times longer a text may become."""
LONGEST_WORD = 500
"""Characters of a word that is cut into pieces (`max_input_chars_per_word`); the time grows with the cube of it."""
CHARACTERS = "precompiled_charsmap"
"""The setting with a table of characters and their replacements."""
ESCAPE = r"\\(?:[pP]\{\^?[\w ]+\}|x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{4}|[sSdDwWbBAzZnrtfvaehH_]|\W)"
PATTERN = re.compile(
    rf"(?P<escape>{ESCAPE})|(?P<repeat>[*+?][?+]?|\{{\d*,?\d*\}}\??)|(?P<open>\((?:\?(?:[:=!>]|<[=!]|i:)|(?![?*])))"
    r"|(?P<close>\))|(?P<either>\|)|(?P<set>\[\^?(?!\]))|(?P<other>[^\\\[(])",
    re.DOTALL,
)
"""The pieces of a regular expression outside [brackets]."""
IN_BRACKETS = re.compile(rf"(?P<escape>{ESCAPE})|(?P<set>\[\^?(?!\]))|(?P<end>\])|(?P<other>[^\\\[])", re.DOTALL)
BEHIND_LOOPS = re.compile(r"(\((\?i?:)?[^()\[\\*+?{]*\)\?)?(\||\Z)")
"""What may follow the second part of any length in an alternative: a group that may be absent, and the end."""
MOST_CHOICES, MOST_ALTERNATIVES, MOST_PATTERNS = 4, 20, 20
"""Parts of an alternative that may be absent or have variants; alternatives of a regular expression; expressions."""


def tokenizer_of(content: str) -> Any:
    """The tokenizer that the content of a file describes, as an object of the package `tokenizers`.

    Raises:
        UsageError: it cannot be read, or its steps could fill the memory or take hours.
        ImportError: the package is missing.
    """
    from tokenizers import Tokenizer

    if len(content) > MOST_CHARACTERS:
        raise UsageError(f"the tokenizer is refused: it has {len(content):,} characters, at most {MOST_CHARACTERS:,}")
    with refusing("the tokenizer cannot be read"):
        # the library could take the first of two values with the same key, and the check the second one
        found = json.loads(content, object_pairs_hook=no_key_twice)
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        _check(found)
        return Tokenizer.from_str(content)


@contextmanager
def refusing(what: str, advice: str = "Give a model with another tokenizer.json") -> Iterator[None]:
    """Raises a UsageError in place of everything that the library raises.

    For many invalid files the library raises a `PanicException`, which is no `Exception`.

    Args:
        what: the beginning of the message.
        advice: its end.
    """
    try:
        yield
    except UsageError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # such as Ctrl-C
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{what}: {printable(reason)[:200]}. {advice}") from error


def _check(found: dict[str, Any]) -> None:
    """Refuses steps that could fill the memory or take hours.

    Raises:
        ValueError: with the reason.
    """
    model = found.get("model") or {}
    most = model.get("max_input_chars_per_word") or 0
    if not isinstance(most, int) or most > LONGEST_WORD:
        raise ValueError(f"max_input_chars_per_word is {most}, at most {LONGEST_WORD} is allowed")
    growth = 1.0
    for name in ("normalizer", "pre_tokenizer"):
        for step in _dicts_in(found.get(name)):
            growth *= _growth(step)
    if growth > MOST_GROWTH:
        raise ValueError(f"its steps can make a text more than {MOST_GROWTH:,} times longer")
    steps = [step for name in found if name not in ("model", "added_tokens") for step in _dicts_in(found[name])]
    if len(steps) > MOST_STEPS:
        raise ValueError(f"it has {len(steps):,} steps, at most {MOST_STEPS} are allowed")
    patterns = [step["Regex"] for step in [*steps, model] if isinstance(step.get("Regex"), str)]
    if len(patterns) > MOST_PATTERNS:
        raise ValueError(f"it has {len(patterns)} regular expressions, at most {MOST_PATTERNS} are allowed")
    for pattern in patterns:
        if not is_simple(pattern):
            raise ValueError(f"the regular expression {pattern[:100]!r} is so complex that it could run for hours")
    for step in [*steps, model]:
        for name, value in step.items():
            if isinstance(value, str) and len(value) > LONGEST_SETTING and name != CHARACTERS:
                raise ValueError(f"the setting {name!r} has {len(value):,} characters, at most {LONGEST_SETTING:,}")


def _dicts_in(node: Any) -> Iterator[dict[str, Any]]:
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _growth(step: dict[str, Any]) -> float:
    """How many times longer a step makes a text at most, except for a few characters at the ends.

    The kind of a step may be left out in the file, so its settings tell what it does.
    """
    growth = 1.0
    content, pattern = step.get("content"), step.get("pattern")
    if isinstance(content, str) and isinstance(pattern, dict):
        text = pattern.get("String")
        # a regular expression may match nothing, between all characters
        growth *= max(len(content) / max(len(text), 1), 1) if isinstance(text, str) else 1 + len(content)
    if step.get("type") == "ByteLevel" or "trim_offsets" in step:
        growth *= 2  # each byte becomes a character, and many characters have two bytes
    if isinstance(step.get(CHARACTERS), str):
        with suppress(ValueError):  # then the library refuses it, too
            table = base64.b64decode(step[CHARACTERS])
            texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
            growth *= max(1, *(len(text.decode(errors="replace")) for text in texts))
    return growth


def is_simple(pattern: str) -> bool:
    """Whether a regular expression surely needs little time: no loop in a loop, and at most two in a row.

    Expressions with references, comments, conditions or unusual options count as not simple.
    """
    pattern = pattern.removeprefix("(?i)")
    place = groups = sets = loops = choices = alternatives = 0
    before = "open"
    while place < len(pattern):
        found = (IN_BRACKETS if sets else PATTERN).match(pattern, place)
        if found is None:
            return False
        kind, place = found.lastgroup, found.end()
        sets += (kind == "set") - (kind == "end")
        groups += (kind == "open") - (kind == "close")
        is_loop = kind == "repeat" and not found[0].startswith("?")
        if kind == "repeat" and (before in ("repeat", "open", "either") or (is_loop and before == "close")):
            return False
        loops += is_loop
        choices += kind == "repeat" and not is_loop
        choices += kind == "open" and found[0] in ("(", "(?:", "(?i:")
        if kind == "either" and not groups:
            loops = choices = 0
            alternatives += 1
        if groups < 0 or choices > MOST_CHOICES or alternatives > MOST_ALTERNATIVES:
            return False
        if is_loop and loops > 1 and (groups or not BEHIND_LOOPS.match(pattern, place)):
            return False  # if what follows does not fit, all lengths of the first part are tried with all of the second
        before = kind
    return not sets and not groups and len(pattern) <= LONGEST_SETTING
