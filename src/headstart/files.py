"""Writing a file whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, binary: bool = False) -> Iterator[IO]:
    """A stream to a temporary file in the same folder, which takes the place of `path` once all is on the disk.

    An error leaves what was there before, and no litter; a power cut leaves the old file or the new one. Names that
    are not valid Unicode come back as they were.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    text = {} if binary else {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    try:
        with temporary.open("wb" if binary else "w", **text) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes a renaming last; Windows neither needs nor allows it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
