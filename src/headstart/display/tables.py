"""Tables for the terminal."""

from rich.console import Console
from rich.table import Table

from headstart.errors import printable


def show(table: Table) -> None:
    """Prints a table to stderr. Names are shown as they are: brackets (`[stem]`) and colons are no markup.

    Only control characters become `?`.
    """
    table.title = printable(str(table.title or ""))
    for column in table.columns:
        column._cells = [printable(cell) if isinstance(cell, str) else cell for cell in column.cells]
    Console(stderr=True, markup=False, emoji=False).print(table)


def data_table(classes: list[str], counts: dict[str, list[int]], limit: int = 20) -> Table:
    """A table of the samples of each class in each split, with the first `limit` classes."""
    table = Table(title="samples", title_justify="left")
    table.add_column("class")
    for split in counts:
        table.add_column(split, justify="right")
    for place, name in enumerate(classes[:limit]):
        table.add_row(name, *(f"{row[place]:,}" for row in counts.values()))
    if len(classes) > limit:
        table.add_row(f"... {len(classes) - limit} more", *("" for _ in counts))
    table.add_section()
    table.add_row("all", *(f"{sum(row):,}" for row in counts.values()))
    return table
