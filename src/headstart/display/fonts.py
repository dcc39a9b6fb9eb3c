"""Fonts for class names that matplotlib's own font cannot show, such as Chinese, Japanese and Korean ones."""

import logging
import warnings
from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

log = logging.getLogger(__name__)
MISSING_GLYPH = r"Glyph \d+ .*missing from"
"""The warning of matplotlib for each character that no font of a text has."""
LISTED = 10
"""Characters that a message lists."""


def choose_fonts(figure: Figure) -> None:
    """Gives each text of a figure a second font if its own has not all characters; a warning says what no font has."""
    # the warning below says it once, and what to do
    warnings.filterwarnings("ignore", MISSING_GLYPH)
    missing: set[str] = set()
    for text in figure.findobj(Text):
        own = text.get_fontproperties()
        if characters := _without(text.get_text(), findfont(own)):
            name, still_missing = _best_font(frozenset(characters))
            missing |= still_missing
            if name is not None:
                text.set_fontfamily([*own.get_family(), name])
    if missing:
        _warn("".join(sorted(missing)))


def _without(text: str, file: str) -> set[str]:
    """The characters of a text that a font does not have."""
    if text.isascii():
        return set()
    known = _characters_of(file)
    return {character for character in text if character.isprintable() and ord(character) not in known}


@cache
def _characters_of(file: str) -> frozenset[int]:
    try:
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError):  # such as a font that was removed
        return frozenset()


@cache
def _best_font(characters: frozenset[str]) -> tuple[str | None, frozenset[str]]:
    """The name of the installed font that has most of these characters, and those that it has not."""
    best: tuple[str | None, frozenset[str]] = None, characters
    for entry in fontManager.ttflist:
        if "lastresort" in entry.name.lower().replace(" ", ""):  # it draws a box for each character
            continue
        missing = frozenset(_without("".join(characters), entry.fname))
        # a font with several faces or weights is found by its name, and that may be another file
        if len(missing) < len(best[1]) and findfont(FontProperties(family=[entry.name])) == entry.fname:
            best = entry.name, missing
        if not best[1]:
            break
    return best


@cache
def _warn(characters: str) -> None:
    shown = characters if len(characters) <= LISTED else f"{characters[:LISTED]} and {len(characters) - LISTED} more"
    log.warning(
        "figures show boxes instead of %s: no font on this machine has these characters. Install one, for Chinese, "
        "Japanese and Korean for example: apt install fonts-noto-cjk. Then make the figures again. Tables and pages "
        "are not affected",
        shown,
    )
