"""A comparison of runs in a terminal: one row per configuration, and one sentence per tested pair."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from headstart.evaluation.compare import Configuration, summary


def comparison_table(found: Sequence[Configuration], metric: str) -> Table:
    """The best configuration first: settings, number of runs, mean and range of one metric, seconds, parameters.

    The other metrics are in the files: they have no room in 80 columns.

    Args:
        found: the configurations, in their order.
        metric: such as `val/acc`.
    """
    table = Table(title="comparison, the best first")
    for name in found[0].values or ["configuration"]:
        table.add_column(name, overflow="fold")
    for name in ("runs", metric, "seconds", "parameters"):
        table.add_column(name, justify="right")
    for each in found:
        cost = (summary(each.numbers(name), 0).partition(" (")[0] for name in ("seconds", "parameters"))
        settings = each.values.values() or ["all"]
        table.add_row(*settings, str(len(each.runs)), summary(each.numbers(metric)), *cost)
    return table


def sentences(claims: dict[str, Any]) -> list[str]:
    """The tested pairs and the note about them, as `significance.claims` gives them, one line each."""
    found = []
    for row in claims["rows"]:
        pair = dict(zip(claims["header"], row, strict=True))
        found.append(
            f"{pair['first']} against {pair['second']}: {pair['verdict']} (difference {pair['difference']}, "
            f"p {pair['p']}, after Holm {pair['p after Holm']}, {pair['samples']} samples)"
        )
    return [*found, claims["note"]]
