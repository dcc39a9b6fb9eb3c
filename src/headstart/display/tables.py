"""Tables in the terminal."""

from rich.console import Console
from rich.table import Table


def show(table: Table) -> None:
    """Prints a table where a person looks; names in brackets (`[stem]`) or colons are names, no markup."""
    Console(stderr=True, markup=False, emoji=False).print(table)


def data_table(classes: list[str], counts: dict[str, list[int]], limit: int = 20) -> Table:
    """Samples of each class in each split; of many classes the first `limit`."""
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
