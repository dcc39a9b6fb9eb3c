"""Figure and tables of a sweep: the score against a swept number and against time, one line per strategy.

python scripts/plot_sweep.py logs/transfer_vs_scratch/multiruns/<date> [--metric test/acc]

Writes sweep.png and sweep.md beside sweep.csv, and prints the tables of scores and of seconds: mean (lowest to highest)
over the seeds. Jobs that differ in a setting other than the number and the seed are separate lines. The value null (no
limit) is at the end of the axis, as "all".
"""

import argparse
import csv
import math
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, NullLocator

from headstart.errors import UsageError
from headstart.runs.directory import Run

Lines = dict[str, dict[float, list[float]]]  # line -> swept number -> one score per seed


def read(folder: Path, metric: str, x: str, over: str) -> tuple[Lines, int]:
    """The scores of a sweep, and the number of jobs without a score."""
    file = folder / "sweep.csv"
    if not file.is_file():
        raise UsageError(f"{file} does not exist: give the folder of a sweep")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    jobs = [words_of(row["job"]) for row in rows]
    varied = [key for key in dict.fromkeys(k for job in jobs for k in job) if len({job.get(key) for job in jobs}) > 1]
    lines: Lines = defaultdict(lambda: defaultdict(list))
    for row, job in zip(rows, jobs, strict=True):
        words = {key: job.get(key, "default") for key in varied if key not in (x, over)}
        # with a single key, its value is enough
        name = " ".join(f"{key}={value}" if len(words) > 1 else value for key, value in words.items()) or "all"
        score = score_of(row, folder, metric)
        if score is not None:
            lines[name][number(job, x)].append(score)
    found = sum(len(scores) for points in lines.values() for scores in points.values())
    if not found:
        raise UsageError(f"no job of {file} has a {metric}")
    return lines, len(rows) - found


def words_of(job: str) -> dict[str, str]:
    """`a.b=1 c=x` -> `{"a.b": "1", "c": "x"}`; a value may contain spaces."""
    words = [word.partition("=") for word in re.split(r"\s(?=[^\s=]+=)", job)]
    return {key: value.rstrip() for key, equals, value in words if equals}


def number(job: dict[str, str], x: str) -> float:
    """The value of `x` in this job; infinity for null."""
    if x not in job:
        raise UsageError(f"the sweep does not set {x}: --x=<one of {', '.join(job)}>")
    if job[x] == "null":
        return math.inf
    try:
        found = float(job[x])
    except ValueError:
        found = math.nan
    if not found > 0:
        raise UsageError(f"{x}={job[x]} is not a positive number: --x=<one of {', '.join(job)}>")
    return found


def score_of(row: dict[str, str], folder: Path, metric: str) -> float | None:
    """A column of the row of a job, or a metric of its run; None if the job failed or the metric is undefined."""
    if not row["score"] or metric in row:
        return float(row[metric]) if row["score"] else None
    run = Run(folder / Path(row["run"]).name)  # works also after the sweep was moved
    if metric not in run.metrics:
        raise UsageError(f"{run.metrics_file} has no {metric}: --metric=<one of {', '.join(run.metrics)}>")
    return run.metrics[metric]


def table(lines: Lines, x: str, digits: int = 3) -> str:
    """A Markdown table: one row per swept number, one column per line."""
    numbers = sorted({n for points in lines.values() for n in points})
    rows = [[label(n), *(cell(points.get(n, []), digits) for points in lines.values())] for n in numbers]
    return "\n".join(f"| {' | '.join(row)} |" for row in [[x, *lines], ["---"] * (len(lines) + 1), *rows])


def label(number: float) -> str:
    """A swept number as text, for tables and for the axis."""
    return "all" if math.isinf(number) else f"{number:g}"


def cell(values: list[float], digits: int) -> str:
    """Mean (lowest to highest)."""
    if not values:
        return ""
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def draw(lines: Lines, times: Lines, x: str, metric: str) -> Figure:
    """Mean and range of each line against the swept number, and its means against the seconds of a run."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_number, by_time = figure.subplots(1, 2, sharey=True)
    numbers = sorted({n for points in lines.values() for n in points})
    finite = [n for n in numbers if math.isfinite(n)]
    place = {n: n if math.isfinite(n) else 2 * max(finite, default=1) for n in numbers}
    for name, points in lines.items():
        ordered = sorted(points)
        means, at = [statistics.mean(points[n]) for n in ordered], [place[n] for n in ordered]
        (line,) = by_number.plot(at, means, marker="o", label=name)
        lowest, highest = [min(points[n]) for n in ordered], [max(points[n]) for n in ordered]
        by_number.fill_between(at, lowest, highest, alpha=0.2, color=line.get_color(), linewidth=0)
        seconds = [statistics.mean(times[name][n]) for n in ordered]
        by_time.plot(seconds, means, marker="o", color=line.get_color())
        for n, second, mean in zip(ordered, seconds, means, strict=True):
            by_time.annotate(label(n), (second, mean), xytext=(4, -10), textcoords="offset points", fontsize=8)
    by_number.set(xlabel=x, ylabel="best monitored score" if metric == "score" else metric, xscale="log")
    by_number.set_xticks([place[n] for n in numbers], [label(n) for n in numbers])
    by_number.xaxis.set_minor_locator(NullLocator())
    by_number.legend()
    by_time.set(xlabel="seconds of a run")
    show_in_plain_numbers(by_time)
    for axes in (by_number, by_time):
        axes.grid(alpha=0.3)
    return figure


def show_in_plain_numbers(axes: Axes) -> None:
    """Makes the horizontal axis logarithmic, with plain numbers as labels."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(3, 0.6)))


def main() -> None:
    """Writes the figure and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of a sweep, which holds sweep.csv")
    parser.add_argument("--metric", default="score", help="column of sweep.csv or metric of the runs, such as test/acc")
    parser.add_argument("--x", default="data.shots_per_class", help="the number along the axis")
    parser.add_argument("--over", default="seed", help="setting over which mean and range are computed")
    given = parser.parse_args()
    try:
        lines, failed = read(given.folder, given.metric, given.x, given.over)
        times, _ = read(given.folder, "seconds", given.x, given.over)
    except UsageError as reason:
        sys.exit(f"error: {reason}")
    text = f"{table(lines, given.x)}\n\n{table(times, f'{given.x}, seconds', digits=0)}"
    (given.folder / "sweep.md").write_text(text + "\n", encoding="utf-8")
    draw(lines, times, given.x, given.metric).savefig(given.folder / "sweep.png", dpi=120)
    print(text)
    if failed:
        print(f"{failed} jobs have no score and are left out", file=sys.stderr)


if __name__ == "__main__":
    main()
