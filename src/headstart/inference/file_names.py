"""Which files a person means by a file, a folder, a pattern, or names on standard input."""

import glob
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from headstart.errors import UsageError, nearest
from headstart.inputs.images.decode import PICTURE_SUFFIXES
from headstart.inputs.images.files import files_below

STDIN = "-"


@dataclass(frozen=True)
class PicturePaths:
    """File names, each found when it is asked for.

    Attributes:
        names: they, in a fixed order; at least one.
        total: how many there are; None where only reading on would tell.
    """

    names: Iterator[str]
    total: int | None


def find_pictures(given: str) -> PicturePaths:
    """The pictures that `input=<given>` means.

    Args:
        given: a file; a folder, of which all files with a picture's ending are taken, also of folders below it, sorted;
            a pattern such as `photos/**/*.jpg`, whose files are all taken, sorted; or `-` for standard input, a name a
            line, which nobody checks before it is read.

    Raises:
        UsageError: there is none.
    """
    if given == STDIN:
        return PicturePaths(_at_least_one(_from_stdin(), "input=-: there was no file name on standard input"), None)
    path = Path(given).expanduser()
    if path.is_dir():
        return _counted(
            lambda: _below(path),
            f"input={given}: no file below this folder ends like a picture ({', '.join(sorted(PICTURE_SUFFIXES))}); "
            f"files with other endings are taken by a pattern, input='{given}/**/*'",
        )
    if os.path.lexists(path):
        return PicturePaths(iter([str(path)]), 1)
    if glob.has_magic(str(path)):
        return _counted(lambda: _matching(str(path)), f"input={given}: no file has a name like this")
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    raise UsageError(
        f"input={given}: no such file or folder{nearest(path.name, siblings) or '.'} "
        "Give a picture, a folder, a pattern such as 'photos/*.jpg', or - for file names on standard input"
    )


def _counted(names: Callable[[], Iterator[str]], nothing: str) -> PicturePaths:
    """Looks twice instead of remembering: that takes little beside decoding."""
    total = sum(1 for _ in names())
    return PicturePaths(_at_least_one(names(), nothing), total)


def _at_least_one(names: Iterator[str], nothing: str) -> Iterator[str]:
    first = next(names, None)
    if first is None:
        raise UsageError(nothing)
    return chain([first], names)


def _below(folder: Path) -> Iterator[str]:
    return (str(path) for path in files_below(folder) if path.suffix.lower() in PICTURE_SUFFIXES)


def _matching(pattern: str) -> Iterator[str]:
    # the names alone, for only all of them can be sorted
    return (name for name in sorted(glob.iglob(pattern, recursive=True)) if not os.path.isdir(name))


def _from_stdin() -> Iterator[str]:
    """A name a line; bytes that are no text come back as they were."""
    for line in sys.stdin.buffer:
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield name
