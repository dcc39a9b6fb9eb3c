"""The texts on a report page: examples, lengths, mistakes, neighbours and suspected labels."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from headstart.data.module import SPLITS, DataModule
from headstart.display.page import inline_svg, style
from headstart.display.samples import Entry
from headstart.display.tables import excerpt
from headstart.display.texts import page_entry
from headstart.files import large_fields
from headstart.inputs.base import Preprocess
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.inputs.text.words import Word
from headstart.report.sampling import MEASURED, evenly

EXAMPLE = 240
"""Characters of an example text that are shown."""
BARS = 30
PageEntries = list[list[dict[str, Any]]]
"""Groups of entries for the template of texts."""


def lengths(data: DataModule, preprocess: Preprocess) -> tuple[str | None, Markup | None]:
    """The lengths of the texts in words and as a histogram; None if the samples are no texts."""
    if not isinstance(preprocess, TextPreprocess):
        return None, None
    chosen = evenly([index for split in SPLITS for index in data.splits[split]], MEASURED)
    texts = [data.samples.load(index) for index in chosen]
    with style():
        figure = _histogram(preprocess.full_lengths(texts), preprocess.max_length)
    words = preprocess.summary_of(texts)
    return words, inline_svg(figure, "lengths", f"Histogram of the lengths in tokens; {words}")


def _histogram(numbers: list[int], most: int) -> Figure:
    """Number of texts of each length in tokens, and the longest length that the model reads."""
    figure = Figure(figsize=(5.2, 2.6), layout="constrained")
    axes = figure.subplots()
    end = max(numbers) + 1
    axes.hist(numbers, bins=np.linspace(0, end, min(BARS, end) + 1), color="tab:blue")
    if end > most:
        axes.axvline(most, color="tab:orange", linestyle="--")
        axes.annotate(" cut here", (most, 1), xycoords=("data", "axes fraction"), va="top")
    axes.set(xlabel="tokens", ylabel="texts", xlim=(0, end))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def examples_of(data: DataModule, indices: list[int]) -> list[str]:
    """The beginnings of texts."""
    return [excerpt(data.samples.load(index), EXAMPLE) for index in indices]


def mistake_entries(folder: Path, rows: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Path -> the entry of a mistake, with its words in colour if the evaluation has explained it.

    Args:
        folder: of the evaluation.
        rows: of its `mistakes.csv` or `errors.csv`; empty if the samples are no texts.
    """
    explained: dict[str, list[Word]] = defaultdict(list)
    classes = {}
    for row in read_rows(folder / "explanations.csv"):
        explained[row["path"]].append(Word(int(row["start"]), int(row["end"]), float(row["weight"])))
        classes[row["path"]] = row["class"]
    found = {}
    for row in rows:
        if "text" in row:
            words = explained.get(row["path"])
            if "error" in row:
                first, last = f"{row['number']}: {row['true']}", f"error {row['error']}"
            else:
                first, last = f"true: {row['true']}", f"with {float(row['probability']):.3f}"
            lines = (first, f"predicted: {row['predicted']}", last)
            entry = Entry(row["text"], lines, row["path"], True, words, classes.get(row["path"], ""))
            found[row["path"]] = page_entry(entry)
    return found


def other_entries(folder: Path, mistakes: dict[str, dict[str, Any]], most: int) -> list[tuple[str, PageEntries]]:
    """Headings and groups of texts: the neighbours of mistakes, and suspected labels."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(folder / "neighbours.csv"):
        if row["path"] in mistakes and "neighbour_text" in row:
            lines = (row["class"], f"similarity {float(row['similarity']):.2f}")
            group = groups.setdefault(row["path"], [mistakes[row["path"]]])
            group.append(page_entry(Entry(row["neighbour_text"], lines, row["neighbour"])))
    suspects = []
    for row in read_rows(folder / "label_errors.csv")[:most]:
        if "text" in row:
            lines = (f"given: {row['given']}", f"suggested: {row['suggested']}", f"by {-float(row['score']):.2f}")
            suspects.append([page_entry(Entry(row["text"], lines, row["path"]))])
    headings = {
        "The worst mistakes, each with the nearest training samples": list(groups.values()),
        "Training samples whose labels may be wrong": suspects,
    }
    return [(heading, found) for heading, found in headings.items() if found]


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a table of an evaluation; none if there is no such file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream, large_fields():
        return list(csv.DictReader(stream))
