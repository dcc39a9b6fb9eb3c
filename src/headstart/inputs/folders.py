"""The search for data files in a folder, for any kind of input."""

import os
from collections.abc import Iterator
from pathlib import Path

JUNK_NAMES = {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN"}
"""Names of files and folders that are never data. Names with a leading dot are not data either."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
"""File name endings of archives, which nothing here unpacks."""


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder that are not junk, in a fixed order. Links are followed, but no folder is read twice.

    Otherwise a link to a parent folder would never end. Only the names of one folder at a time are in memory.
    """
    return _files(folder, {str(parent) for parent in Path(os.path.realpath(folder)).parents})


def _files(folder: Path, visited: set[str]) -> Iterator[Path]:
    visited.add(os.path.realpath(folder))
    with os.scandir(folder) as found:
        # folders before links, so that a picture's name does not depend on the order in the file system
        entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))
    for entry in entries:
        if is_junk(entry.name):
            continue
        # entry.is_dir() raises an error for a link to itself; os.path.isdir() would be slow for every file
        if not (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()):
            yield Path(entry.path)
        elif os.path.realpath(entry.path) not in visited:
            yield from _files(Path(entry.path), visited)


def is_junk(name: str) -> bool:
    """Whether a file or folder with this name is never data."""
    return name.startswith(".") or name in JUNK_NAMES
