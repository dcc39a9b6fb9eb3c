"""Files: written whole or not at all, damage noticed on reading, JSON that others can read, paths as they are shown.

Nothing here loads torch until a file of `torch.save` is read.
"""

import csv
import errno
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

GB = 10**9  # bytes
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how the files of torch.save begin: since torch 1.6, and before
DIRECTORY = 0x10  # the attribute that makes a record of a zip archive a folder


class UnreadableError(ValueError):
    """A file is not what it should be; the message is the reason, to be put behind the file's name."""


class NotPlainError(UnreadableError):
    """A file is whole, but holds more than tensors and plain data."""


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


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files of `path` that killed processes of this machine left behind.

    Only for a file that no other machine writes: its processes look dead from here.
    """
    with suppress(OSError):  # litter is no reason to stop; what the folder suffers from, the next write will tell
        for file in path.parent.iterdir():
            pid = file.name.removeprefix(f"{path.name}.").removesuffix(".tmp")
            if file.name == f"{path.name}.{pid}.tmp" and re.fullmatch("[0-9]+", pid) and not _lives(int(pid)):
                file.unlink(missing_ok=True)


def read_plain(path: Path, map_location: Any = "cpu", legacy: bool = False) -> Any:
    """What `torch.save` wrote, if no byte of it changed since and it is tensors and plain data; nothing is executed.

    Args:
        map_location: as for `torch.load`.
        legacy: whether files of torch before 1.6 are read too. They hold no checksums: damage may go unnoticed.

    Raises:
        UnreadableError: damaged, cut short, or no file of `torch.save`; NotPlainError where it holds more.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as stream:  # opened once: what was verified is what is read, whatever takes its name
        start = stream.read(len(ZIP))
        if start == ZIP:
            _verify(stream)
        elif not (legacy and start.startswith(PICKLE)):
            raise UnreadableError(
                "it is no file of torch.save, or its beginning is damaged" if start else "it is empty"
            )
        stream.seek(0)
        return _load(stream, map_location, verified=start == ZIP)


def _verify(stream: IO[bytes]) -> None:
    """Compares every record with its checksum, which `torch.save` writes but `torch.load` ignores."""
    try:
        with zipfile.ZipFile(stream) as archive:
            wrong = archive.testzip()
            # torch takes such a record for read without reading anything: its tensor would be memory as it was
            wrong = wrong or next((r.filename for r in archive.infolist() if r.external_attr & DIRECTORY), None)
    except Exception as error:  # zipfile has no common class for what a damaged directory of records leads to
        raise UnreadableError(f"it is damaged or cut short: {_first_line(error)}") from error
    if wrong is not None:
        raise UnreadableError(f"it is damaged: the checksum of its record {wrong} is wrong")


def _load(stream: IO[bytes], map_location: Any, verified: bool) -> Any:
    import torch

    try:
        return torch.load(stream, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if not verified and "GLOBAL" not in str(error):
            raise UnreadableError("it is damaged, or no file of torch.save") from error
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = "more than tensors and plain data" + (f" ({found[1]})" if found else "")
        raise NotPlainError(f"it {'' if verified else 'is damaged, or '}holds {what}, not read for safety") from error
    except Exception as error:  # torch has no common class for it either
        raise UnreadableError(f"torch cannot read it: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _lives(pid: int) -> bool:
    """Whether there is such a process on this machine; yes where that cannot be told."""
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """Makes a renaming last; Windows neither needs nor allows it, and some network folders cannot."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_table(file: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file, the names of the columns first; complete or not at all."""
    with replacing(file) as stream:
        csv.writer(stream).writerows(rows)


def as_json(content: Any) -> str:
    """JSON as other languages read it, too: what is not a number is null."""
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def shown(path: Path) -> str:
    """Relative to where the person is, when it lies below."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
