"""Opens files of data from strangers, for any kind of input."""

import codecs
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from headstart.inputs.base import UnreadableInput

MAX_BYTES = 2**30
"""Largest file that is read."""
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""First bytes of a text in UTF-16."""
SAVE_AS_UTF8 = "UTF-16: save it as UTF-8"
HALF_CHARACTER = "holds half a character (a lone surrogate)"
"""Why such texts cannot be used."""


@contextmanager
def open_file(path: Path | str) -> Iterator[BinaryIO]:
    """Opens a file of data; never a pipe, a device or a socket, which could wait or go on for ever.

    Raises:
        UnreadableInput: it is no ordinary file, too large, or cannot be opened.
    """
    try:
        stream = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - closed below
    except OSError as error:
        raise UnreadableInput(f"cannot be opened ({error.strerror or error})", str(path)) from error
    with stream:
        status = os.fstat(stream.fileno())  # of the open file: the name may belong to another one by now
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableInput("cannot be opened (it is a folder, a pipe, a device or a socket)", str(path))
        if status.st_size > MAX_BYTES:
            reason = f"too large: {status.st_size / 1e9:.1f} GB, at most {MAX_BYTES / 1e9:.1f} GB are read"
            raise UnreadableInput(reason, str(path))
        yield stream


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a pipe at once, even if no process writes to it; changes nothing for an ordinary file."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
