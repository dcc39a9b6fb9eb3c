"""The file with the split of each sample: a run finds its splits again, even if samples are renamed or gone."""

import csv
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from headstart.data.samples import Samples
from headstart.data.splits import SPLITS
from headstart.errors import UsageError
from headstart.files import write_table

log = logging.getLogger(__name__)
COLUMNS = ["split", "name", "class", "digest"]


def write_split_file(path: Path, samples: Samples, splits: dict[str, list[int]]) -> None:
    """Writes one row per sample; the file is written completely or not at all."""
    names, digests = samples.names, samples.digests
    rows = (
        (split, names[i], samples.label_of(i), digests[i] if digests else "") for split in splits for i in splits[split]
    )
    write_table(path, [COLUMNS, *rows])


@dataclass(frozen=True)
class Row:
    """One sample in the file that `write_split_file` wrote; `digest` is empty if its content is not known."""

    split: str
    name: str
    digest: str


def read_rows(path: Path) -> list[Row]:
    """The rows of the file that `write_split_file` wrote; older files have no digests.

    Raises:
        UsageError: the file has another format, or a name twice.
    """
    found: dict[str, Row] = {}
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:  # -sig: Excel's mark
        rows = csv.DictReader(file)
        if rows.fieldnames not in (COLUMNS, COLUMNS[:-1]):
            raise UsageError(
                f"{path} does not have the columns {', '.join(COLUMNS)}: restore the file that the run wrote"
            )
        for row in rows:
            name, split = row["name"], row["split"]
            if split not in SPLITS:
                raise UsageError(f"{path}, line {rows.line_num}: split {split!r} is not one of {', '.join(SPLITS)}")
            if name in found:
                raise UsageError(f"{path}, line {rows.line_num}: {name} is there twice: keep one of the lines")
            found[name] = Row(split, name, row.get("digest") or "")
    return list(found.values())


def read_split_file(path: Path, samples: Samples) -> dict[str, list[int]]:
    """The assignment from the file that `write_split_file` wrote, as indices.

    A sample is found by its content, also under another name; if its content is not known or has changed, by its name.
    Samples that are not in the file are in no split. Samples of the file that are gone are left out, and the others
    keep their splits: new splits would mix training samples into the test.

    Raises:
        UsageError: as `read_rows`; or none of the samples of the file is in the data set.
    """
    rows = read_rows(path)
    found = _find(rows, samples)
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for row in rows:
        if row.name in found:
            splits[row.split].append(found[row.name])
    gone = [row.name for row in rows if row.name not in found]
    if gone and not found:
        raise UsageError(
            f"none of the {len(gone)} samples of {path} is in the data set, such as {gone[0]}: "
            "give data.root=<the folder that has them>"
        )
    if gone:
        log.warning(
            "%d of %d samples of %s are no longer in the data set, such as %s: they are left out, the others keep "
            "their splits",
            *(len(gone), len(rows), path, gone[0]),
        )
    renamed = [(name, samples.names[index]) for name, index in found.items() if samples.names[index] != name]
    if renamed:
        log.info("%d samples have other names now, such as %s = %s: they keep their splits", len(renamed), *renamed[0])
    if unused := len(samples) - len(found):
        log.info("splits are read from %s; %d samples that are not in it stay unused", path, unused)
    return splits


def _find(rows: list[Row], samples: Samples) -> dict[str, int]:
    """Name in the file -> index of the sample; each sample is found at most once."""
    position = {name: index for index, name in enumerate(samples.names)}
    if samples.digests is None:
        return {row.name: position[row.name] for row in rows if row.name in position}
    digests = samples.digests
    unchanged = {r.name: position[r.name] for r in rows if r.name in position and digests[position[r.name]] == r.digest}
    free = set(range(len(samples))) - set(unchanged.values())
    by_content = defaultdict(list)
    for index in sorted(free, reverse=True):
        by_content[digests[index]].append(index)
    found = dict(unchanged)
    missing = [row for row in rows if row.name not in found]
    for row in missing:
        if row.digest and by_content.get(row.digest):
            found[row.name] = by_content[row.digest].pop()
            free.discard(found[row.name])
    for row in missing:  # changed, or written before digests were
        if row.name not in found and position.get(row.name) in free:
            found[row.name] = position[row.name]
    return found


def are_all_in(rows: list[Row], samples: Samples) -> bool:
    """Whether a data set holds all samples of a file: by content, or by name where contents are not known."""
    if samples.digests is None or not all(row.digest for row in rows):
        return {row.name for row in rows} <= set(samples.names)
    return {row.digest for row in rows} <= set(samples.digests)
