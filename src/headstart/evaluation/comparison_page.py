"""A comparison of runs as Markdown, as CSV and as one HTML file without external resources."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from headstart.display.figures import FIRST_COLOUR, MUTED_COLOUR, shortened
from headstart.display.page import escape_markdown, inline_svg, style, write_page
from headstart.errors import counted
from headstart.files import replacing, write_table

Points = dict[str, list[tuple[float, float]]]  # configuration -> (metric, seconds) of each run


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [list(map(escape_markdown, row)) for row in rows]
    lines = [list(map(escape_markdown, header)), ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_comparison(
    folder: Path, table: tuple[list[str], list[list[str]]], runs: list[list[Any]], claims: dict[str, Any],
    points: Points, metric: str,
) -> list[Path]:  # fmt: skip
    """Writes `comparison.md`, `comparison.csv` and `comparison.html`, and returns where they are.

    Args:
        folder: of the three files.
        table: header and rows, one row per configuration.
        runs: the header, then one row per run.
        claims: `header` and `rows` of the tested pairs, and a `note` about what may be concluded.
        points: the numbers to draw.
        metric: the name of their metric.
    """
    files = [folder / f"comparison.{ending}" for ending in ("md", "csv", "html")]
    text = markdown_table(*table)
    if claims["rows"]:
        text += "\n\n" + markdown_table(claims["header"], claims["rows"])
    with replacing(files[0]) as stream:
        stream.write(f"{text}\n\n{claims['note']}\n")
    write_table(files[1], runs)
    figures = [_draw_ranges(points, metric), _draw_cost(points, metric)]
    shown = [runs[0], *([Path(row[0]).name, *row[1:]] for row in runs[1:])]
    title = f"{counted(len(points), 'configuration')}, {counted(len(runs) - 1, 'run')}"
    write_page(
        files[2], "comparison.html", title=title, header=table[0], rows=table[1], runs=shown, claims=claims,
        figures=figures, metric=metric,
    )  # fmt: skip
    return files


def _draw_ranges(points: Points, metric: str) -> Markup:
    """One row per configuration, the best on top: every run, the mean and the range."""
    order = sorted(points, key=lambda name: statistics.mean(value for value, _ in points[name]))
    with style():
        figure = Figure(figsize=(4.6, 0.45 * len(order) + 1.1), layout="constrained")
        axes = figure.subplots()
        for row, name in enumerate(order):
            values = [value for value, _ in points[name]]
            axes.plot([min(values), max(values)], [row, row], color=MUTED_COLOUR, linewidth=2)
            axes.plot(values, [row] * len(values), "o", color=FIRST_COLOUR, alpha=0.5, markersize=5)
            axes.plot(statistics.mean(values), row, "|", color=FIRST_COLOUR, markersize=16, markeredgewidth=2.5)
        axes.set_yticks(range(len(order)), [shortened(name, 34) for name in order])
        axes.set(xlabel=metric, ylim=(-0.6, len(order) - 0.4))
        axes.grid(alpha=0.3, axis="x")
    described = ", ".join(f"{name} {statistics.mean(v for v, _ in points[name]):.4f}" for name in reversed(order))
    return inline_svg(figure, "ranges", f"Mean {metric} of each configuration, the best first: {described}")


def _draw_cost(points: Points, metric: str) -> Markup:
    """The metric against the seconds, one point per run."""
    with style():
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, found in points.items():
            values, seconds = zip(*found, strict=True)
            axes.plot(seconds, values, "o", label=shortened(name, 34))
        axes.set(xlabel="seconds", ylabel=metric)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        if 1 < len(points) <= 10:
            figure.legend(loc="outside lower center", fontsize=8)
    runs = counted(sum(map(len, points.values())), "run")
    return inline_svg(figure, "cost", f"{metric} against the seconds of {runs}")
