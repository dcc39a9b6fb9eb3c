"""Shows samples that are texts: as pages, with the words that led to a prediction in colour, and in TensorBoard."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.display.page import escape_markdown, write_page
from headstart.display.samples import Entry, SampleView
from headstart.display.tables import excerpt
from headstart.inputs.text.words import Word

TEMPLATE = "texts.html"
LONGEST = 1500
"""Characters of a text that a page shows."""
NAMED = 3
"""Words with the largest weights that are listed below a text, for and against the class."""

NEGLIGIBLE = 0.005
"""Smaller weights are not listed: they would be printed as 0.00."""


@dataclass(frozen=True)
class Piece:
    """A part of a text on a page: a word with its weight, or what stands between words.

    Attributes:
        text: the characters.
        weight: from -1 to 1, relative to the largest of the text; None: between words, or no explanation.
        is_read: whether the network gets this part.
    """

    text: str
    weight: float | None = None
    is_read: bool = True


class TextView(SampleView):
    """Pages of texts, and tables in TensorBoard."""

    can_show = True
    parts = "words"
    column = "text"

    def write(self, file: Path, groups: Sequence[Sequence[Entry]], title: str) -> None:
        """Writes `<file>.html`."""
        coloured = any(entry.explanation is not None for group in groups for entry in group)
        shown = [[page_entry(entry) for entry in group] for group in groups]
        write_page(file.with_name(f"{file.name}.html"), TEMPLATE, title=title, groups=shown, coloured=coloured)

    def add_to(self, writer: Any, tag: str, entries: Sequence[Entry], title: str, step: int) -> None:
        """Adds a table in the text tab."""
        rows = [f"| {escape_markdown(', '.join(e.lines))} | {escape_markdown(excerpt(e.sample))} |" for e in entries]
        writer.add_text(tag, "\n".join([f"| {escape_markdown(title)} | text |", "|---|---|", *rows]), step)

    def explanation_rows(self, entries: Sequence[Entry]) -> list[list[str]]:
        """One row per word: its text, its place in the text in characters, and its share of the logit."""
        rows = [["path", "class", "word", "start", "end", "weight"]]
        for entry in entries:
            for word in entry.explanation:
                place = [str(word.start), str(word.end), f"{word.weight:.6f}"]
                rows.append([entry.name, entry.explained, entry.sample[word.start : word.end], *place])
        return rows


def page_entry(entry: Entry) -> dict[str, Any]:
    """The values that the template of texts needs for one entry."""
    words = entry.explanation
    return {
        "lines": entry.lines,
        "name": entry.name,
        "pieces": pieces(entry.sample, words or []),
        "words": None if words is None else main_words(entry.sample, words),
        "explained": entry.explained,
    }


def pieces(text: str, words: Sequence[Word], most: int = LONGEST) -> list[Piece]:
    """The beginning of a text, cut into its words and what stands between them.

    Args:
        text: all of it.
        words: in order; empty: there is no explanation.
        most: number of characters that are shown.
    """
    largest = max((abs(word.weight) for word in words), default=0) or 1
    found, place = [], 0
    for word in words:
        if word.start < place or word.end > most:
            continue
        if word.start > place:
            found.append(Piece(text[place : word.start]))
        found.append(Piece(text[word.start : word.end], round(word.weight / largest, 3)))
        place = word.end
    rest = text[place:most]
    # tokenizers leave out single accents and invisible characters; that is no cut
    was_cut = bool(words) and place == words[-1].end and any(map(str.isalnum, rest))
    unread = rest.lstrip() if was_cut else ""
    if space := rest[: len(rest) - len(unread)]:
        found.append(Piece(space))
    if unread:
        found.append(Piece(unread, is_read=False))
    return [*found, Piece(" ...")] if len(text) > most else found


def main_words(text: str, words: Sequence[Word]) -> dict[str, list[str]]:
    """The words with the largest weights, `for` and `against` the class, as `word +0.12`."""
    ordered = sorted(words, key=lambda word: -abs(word.weight))
    named = [(word.weight, f"{excerpt(text[word.start : word.end], 30)} {word.weight:+.2f}") for word in ordered]
    return {
        "for": [name for weight, name in named if weight > NEGLIGIBLE][:NAMED],
        "against": [name for weight, name in named if weight < -NEGLIGIBLE][:NAMED],
    }
