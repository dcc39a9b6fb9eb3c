"""Which files a person means by a file, a folder, a pattern, or names on standard input."""

import glob
import os
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from headstart.errors import UsageError, nearest
from headstart.inputs.images.files import files_below

STDIN = "-"


@dataclass(frozen=True)
class FilePaths:
    """File names, each found when it is asked for.

    Attributes:
        names: they, in a fixed order; at least one.
        total: how many there are; None where only reading on would tell.
    """

    names: Iterator[str]
    total: int | None


def find_files(given: str, suffixes: Collection[str], sample_name: str) -> FilePaths:
    """The files that `input=<given>` means.

    Args:
        given: a file; a folder, of which all files with one of the suffixes are taken, sorted, also from folders below
            it; a pattern such as `photos/**/*.jpg`, whose files are all taken, sorted; or `-` for standard input, one
            name per line, which nobody checks before it is read.
        suffixes: endings of files that hold such a sample, lower case with the dot.
        sample_name: what a sample is called.

    Raises:
        UsageError: there is none.
    """
    if given == STDIN:
        return FilePaths(_at_least_one(_from_stdin(), "input=-: there was no file name on standard input"), None)
    path = Path(given).expanduser()
    if path.is_dir():
        return _counted(
            lambda: _below(path, suffixes),
            f"input={given}: no file below this folder ends like a {sample_name} ({', '.join(sorted(suffixes))}); "
            f"files with other endings are taken by a pattern, input='{given}/**/*'",
        )
    if os.path.lexists(path):
        return FilePaths(iter([str(path)]), 1)
    if glob.has_magic(str(path)):
        return _counted(lambda: _matching(str(path)), f"input={given}: no file has a name like this")
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    raise UsageError(
        f"input={given}: no such file or folder{nearest(path.name, siblings) or '.'} "
        f"Give a {sample_name}, a folder, a pattern such as 'photos/*.jpg', or - for file names on standard input"
    )


def _counted(names: Callable[[], Iterator[str]], nothing: str) -> FilePaths:
    """Looks twice instead of remembering: that takes little beside decoding."""
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
    # the names alone, for only all of them can be sorted
    return (name for name in sorted(glob.iglob(pattern, recursive=True)) if not os.path.isdir(name))


def _from_stdin() -> Iterator[str]:
    """A name a line; bytes that are no text come back as they were."""
    for line in sys.stdin.buffer:
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield name
