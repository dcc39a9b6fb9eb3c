"""Compares runs: a table, two figures, and a test of which differences are significant.

python src/compare.py logs/train/multiruns/<date>                      the runs of a sweep
python src/compare.py logs/train/runs/<date> logs/train/runs/<date>    two runs

Writes comparison.md, comparison.csv and comparison.html, and prints the table: one row per configuration, with the mean
(lowest to highest) over the seeds. Two runs are tested against each other if both were evaluated on the same samples
(python src/evaluate.py run=<run> split=val): McNemar's exact test, corrected for all pairs by Holm's method.
"""

import argparse
import sys
from pathlib import Path

from headstart.cli.run import run_entry_point
from headstart.cli.terminal import say, show, wrapped
from headstart.errors import printable
from headstart.files import relative_to_cwd
from headstart.runs.directory import Run


def main() -> None:
    """Compares the runs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="run directories, sweep directories, or both")
    parser.add_argument(
        "--split", default="val", choices=("val", "test"), help="split of the metrics; do not choose by test"
    )
    parser.add_argument("--metric", default="acc", help="metric that is drawn and orders the rows, such as f1_macro")
    parser.add_argument("--over", default="seed", help="setting over which mean and range are computed")
    parser.add_argument("--output", type=Path, help="folder of the files; default: where the runs are")
    compare(parser.parse_args())


def compare(given: argparse.Namespace) -> None:
    """Reads the runs, tests their differences, writes the files and prints the tables."""
    say("reading the runs")
    # imported here, so that --help is answered without loading numpy and matplotlib
    from headstart.evaluation import compare as comparison
    from headstart.evaluation import significance
    from headstart.evaluation.comparison_page import write_comparison
    from headstart.evaluation.comparison_table import comparison_table, sentences

    runs, without = comparison.ended_runs(given.folders)
    for folder in without:
        print(f"{printable(str(folder))} has not ended and is left out", file=sys.stderr)
    names = comparison.metric_names(runs, given.split, given.metric)
    runs, without = comparison.measured(runs, names[0])
    for folder in without:
        print(f"{printable(str(folder))} has no {names[0]} and is left out", file=sys.stderr)
    found = comparison.ordered(comparison.configurations(runs, given.over), names[0])
    header, rows = comparison.configuration_rows(found, names)
    claims = significance.claims(*significance.pair_tests(found, given.split, given.over), given.split)
    points = {each.title: [(run.metrics[names[0]], run.metrics["seconds"]) for run in each.runs] for each in found}
    first = given.folders[0]
    folder = given.output or (first.parent if Run(first).exists else first)
    listed = comparison.run_rows(found, names, given.over)
    files = write_comparison(folder, (header, rows), listed, claims, points, names[0])
    show(comparison_table(found, names[0]), to_stdout=True)
    for sentence in sentences(claims):
        print(wrapped(sentence) if sys.stdout.isatty() else sentence)
    say(f"all metrics and figures: {', '.join(map(relative_to_cwd, files))}")


if __name__ == "__main__":
    run_entry_point(main, "train")
