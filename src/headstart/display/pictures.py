"""Shows samples that are pictures: as contact sheets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.display.contact_sheet import Tile, contact_sheet
from headstart.display.figures import save, shortened
from headstart.display.fonts import choose_fonts
from headstart.display.samples import Entry, SampleView

COLUMNS = 6
"""Number of columns in a sheet of pictures."""
CAPTION = 35
"""Longest line of a caption, in characters."""


class PictureView(SampleView):
    """Contact sheets, as PNG and in TensorBoard."""

    can_show = True
    parts = "pixels"
    parts_note = " (grey: the network does not see it)"

    def write(self, file: Path, groups: Sequence[Sequence[Entry]], title: str) -> None:
        """Writes `<file>.png`; groups of several pictures get one row each."""
        tiles = [tile for group in groups for entry in group for tile in _tiles(entry)]
        longest = max(map(len, groups))
        save(file.with_name(f"{file.name}.png"), contact_sheet(tiles, COLUMNS if longest == 1 else longest, title))

    def add_to(self, writer: Any, tag: str, entries: Sequence[Entry], title: str, step: int) -> None:
        """Adds a contact sheet."""
        tiles = [tile for entry in entries for tile in _tiles(entry)]
        sheet = contact_sheet(tiles, COLUMNS, title)
        choose_fonts(sheet)
        writer.add_figure(tag, sheet, step)


def _tiles(entry: Entry) -> list[Tile]:
    """The picture and, if there is an explanation, the picture below its heat map."""
    tile = Tile(
        entry.sample,
        "\n".join(shortened(line, CAPTION) for line in entry.lines),
        colour="firebrick" if entry.is_mistake else "black",
    )
    if entry.explanation is None:
        return [tile]
    return [tile, Tile(entry.sample, f"what led to\n{shortened(entry.explained, 18)}", entry.explanation)]
