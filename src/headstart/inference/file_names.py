"""Finds the files that `input=` names: a file, a folder, a pattern, or file names on standard input."""

import glob
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from headstart.errors import UsageError, nearest_path
from headstart.inputs.folders import ARCHIVES, files_below

STDIN = "-"


@dataclass(frozen=True)
class FilePaths:
    """File names, found one at a time during iteration.

    Attributes:
        names: in a fixed order; at least one.
        total: number of names; None if it is not known in advance (standard input).
    """

    names: Iterator[str]
    total: int | None


def find_files(given: str | Sequence[str], suffixes: Collection[str], sample_name: str) -> FilePaths:
    """The files that `input=<given>` names.

    Args:
        given: one of these, or a list of them: a file; a folder, for all files with one of the suffixes in it and in
            folders below it, sorted; a pattern such as `photos/**/*.jpg`, for all files that match it, sorted; or `-`
            for standard input, one name per line, without a check that the files exist.
        suffixes: endings of files that hold one sample, lower case with the dot.
        sample_name: the word for one sample, such as `picture`.

    Raises:
        UsageError: there is no such file.
    """
    if not isinstance(given, str):
        found = [find_files(each, suffixes, sample_name) for each in given]
        totals = [paths.total for paths in found]
        return FilePaths(chain.from_iterable(paths.names for paths in found), None if None in totals else sum(totals))
    if given == STDIN:
        return FilePaths(_at_least_one(_from_stdin(), "input=-: there is no file name on standard input"), None)
    if re.match(r"[a-z0-9]+://", given, re.IGNORECASE):
        raise UsageError(f"input={given}: nothing is downloaded here; download it first, and give the file")
    path = Path(given).expanduser()
    if path.suffix.lower() in ARCHIVES:
        raise UsageError(f"input={given} is an archive: unpack it, and give the folder that it makes")
    if path.is_dir():
        return _counted(
            lambda: _below(path, suffixes),
            f"input={given}: no file below this folder has the ending of a {sample_name} "
            f"({', '.join(sorted(suffixes))}); for other endings give a pattern, input='{given}/**/*'",
        )
    if os.path.lexists(path):
        return FilePaths(iter([str(path)]), 1)
    if glob.has_magic(str(path)):
        return _counted(lambda: _matching(str(path)), f"input={given}: no file matches this pattern")
    raise UsageError(
        f"input={given}: no such file or folder{nearest_path(path) or '.'} "
        f"Give a {sample_name}, a folder, a pattern such as 'photos/*.jpg', or - for file names on standard input"
    )


def _counted(names: Callable[[], Iterator[str]], nothing: str) -> FilePaths:
    """Searches twice, to keep no names in memory; this takes little time compared with decoding."""
    total = sum(1 for _ in names())
    return FilePaths(_at_least_one(names(), nothing), total)


def _at_least_one(names: Iterator[str], nothing: str) -> Iterator[str]:
    first = next(names, None)
    if first is None:
        raise UsageError(nothing)
    return chain([first], names)


def _below(folder: Path, suffixes: Collection[str]) -> Iterator[str]:
    return (str(path) for path in files_below(folder) if path.suffix.lower() in suffixes)


def _matching(pattern: str) -> Iterator[str]:
    # keeps all names in memory, because they are sorted
    return (name for name in sorted(glob.iglob(pattern, recursive=True)) if not os.path.isdir(name))


def _from_stdin() -> Iterator[str]:
    """One name per line; names that are not valid text keep their bytes."""
    for line in sys.stdin.buffer:
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield name
