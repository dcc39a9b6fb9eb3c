"""Tables for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from headstart.files import Column
from headstart.metrics.mistakes import Mistake
from headstart.metrics.number_predictions import NumberError


def data_table(classes: list[str], counts: dict[str, list[int]], totals: dict[str, int], limit: int = 20) -> Table:
    """A table of the samples of each class in each split, with the first `limit` classes.

    Args:
        classes: their names.
        counts: split -> samples of each class.
        totals: split -> samples; a sample may have several classes, or none.
        limit: number of classes.
    """
    table = Table(title="samples")
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


def results_table(metrics: dict[str, float]) -> Table:
    """The metrics of a run, `<split>/<name>`, as a table: one row per metric, one column per split."""
    splits = list(dict.fromkeys(name.partition("/")[0] for name in metrics))
    table = Table(title="results")
    table.add_column("metric")
    for split in splits:
        table.add_column(split, justify="right")
    for name in dict.fromkeys(name.partition("/")[2] for name in metrics):
        values = [metrics.get(f"{split}/{name}") for split in splits]
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    return table


def print_metrics(metrics: dict[str, float]) -> None:
    """Prints the metrics to stdout as lines that other programs can read."""
    for name, value in metrics.items():
        print(f"{name}: {value:.4f}")


def mistakes_table(mistakes: Sequence[Mistake | NumberError], contents: Column, title: str) -> Table:
    """Mistakes as a table for a terminal of 80 columns; `contents` holds the beginning of each sample."""
    table = Table(title=title, show_lines=True)
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
