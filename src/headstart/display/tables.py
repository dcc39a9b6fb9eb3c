"""Tables for the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from headstart.errors import printable
from headstart.files import Column
from headstart.metrics.mistakes import Mistake
from headstart.metrics.number_predictions import NumberError


def show(table: Table) -> None:
    """Prints a table to stderr. Names are shown as they are: brackets (`[stem]`) and colons are no markup.

    Only control characters become `?`.
    """
    table.title = printable(str(table.title or ""))
    for column in table.columns:
        column._cells = [printable(cell) if isinstance(cell, str) else cell for cell in column.cells]
    Console(stderr=True, markup=False, emoji=False).print(table)


def data_table(classes: list[str], counts: dict[str, list[int]], totals: dict[str, int], limit: int = 20) -> Table:
    """A table of the samples of each class in each split, with the first `limit` classes.

    Args:
        classes: their names.
        counts: split -> samples of each class.
        totals: split -> samples; a sample may have several classes, or none.
        limit: number of classes.
    """
    table = Table(title="samples", title_justify="left")
    table.add_column("class")
    for split in counts:
        table.add_column(split, justify="right")
    for place, name in enumerate(classes[:limit]):
        table.add_row(name, *(f"{row[place]:,}" for row in counts.values()))
    if len(classes) > limit:
        table.add_row(f"... {len(classes) - limit} more", *("" for _ in counts))
    table.add_section()
    table.add_row("all", *(f"{totals[split]:,}" for split in counts))
    return table


def mistakes_table(mistakes: Sequence[Mistake | NumberError], contents: Column, title: str) -> Table:
    """Mistakes as a table for a terminal of 80 columns; `contents` holds the beginning of each sample."""
    table = Table(title=title, title_justify="left", show_lines=True)
    for name in ("true", "predicted"):
        table.add_column(name, max_width=14, overflow="fold")
    table.add_column(mistakes[0].measure if mistakes else "", justify="right", no_wrap=True)
    table.add_column(contents.name, overflow="fold")
    for mistake, content in zip(mistakes, contents.values, strict=True):
        names = (excerpt(name, 24) for name in (mistake.true, mistake.predicted))
        table.add_row(*names, mistake.measured, excerpt(content, 110))
    return table


def excerpt(text: str, most: int = 200) -> str:
    """The beginning of a text on one line, at most this number of characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."
