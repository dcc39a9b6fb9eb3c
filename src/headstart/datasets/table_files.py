"""Finds the table of each split: one file that is cut, or a folder with `train.csv`, `val.csv`, `test.csv`."""

import logging
from pathlib import Path

from headstart.datasets.folder_layout import by_split
from headstart.errors import UsageError, listed, nearest_path
from headstart.inputs.folders import is_junk
from headstart.inputs.tables import READABLE

log = logging.getLogger(__name__)


def files_of_splits(root: Path, folders: str) -> dict[str, Path]:
    """The file of each split that there is.

    Args:
        root: a table, or a folder with tables.
        folders: what to type if the samples are in folders, for messages.

    Raises:
        UsageError: there is no table, or two for one split.
    """
    if root.is_file():
        _tell_of_neighbours(root)
        return {"train": root}
    if not root.is_dir():
        raise UsageError(
            f"data.root={root}: no such file or folder{nearest_path(root) or '.'} Give a table "
            f"({', '.join(READABLE)}), or a folder with the tables train, val and test"
        )
    tables = _tables_in(root)
    found = by_split(tables, lambda path: path.stem)
    for split, files in found.items():
        if len(files) > 1:
            raise UsageError(f"{' and '.join(map(str, files))} are both the {split} split: keep one")
    used = {split: files[0] for split, files in found.items() if files}
    others = [path.name for path in tables if path not in used.values() and not _is_unlabelled(path)]
    if not used:
        raise UsageError(_no_tables(root, others, folders))
    if others:
        log.warning("%s: not used, because they are no split: %s", root, listed(others))
    return used


def _tell_of_neighbours(file: Path) -> None:
    """Says which splits are beside a given file; only the file is used."""
    found = by_split(_tables_in(file.parent), lambda path: path.stem)
    own = next((split for split, files in found.items() if file in files), None)
    others = [path.name for split, files in found.items() if split != own for path in files]
    if own and others:
        log.info(
            "only %s is used, and cut into splits. To use %s as splits, type data.root=%s",
            *(file.name, " and ".join(others), file.parent),
        )


def _no_tables(root: Path, others: list[str], folders: str) -> str:
    found = f"data.root={root} has no table train, val or test ({', '.join(READABLE)})"
    if others:
        return f"{found}, but {listed(others)}: give one of them, such as data.root={root / others[0]}"
    return f"{found}. {folders.format(root=root)}"


def _tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, sorted by name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in READABLE and path.is_file() and not is_junk(path.name)
    ]


def _is_unlabelled(file: Path) -> bool:
    """Whether the name of a file says that its samples have no labels."""
    return file.name.lower().startswith(("unlabelled", "unlabeled", "unsup"))
