"""Pictures on disk after the deterministic part of a transform: the process that computed one adds it, all read it."""

import logging
import os
import struct
import time
import uuid
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import get_worker_info

from headstart.caching.activation_store import INDEX, REMOVED, ROWS, make_room
from headstart.files import GB

log = logging.getLogger(__name__)
RECORD = struct.Struct("<20sQIII")  # of the index: a file's digest, where its picture begins, height, width, checksum
STEP = 64 * 10**6  # bytes: room is asked for so much at a time, as asking looks at every file of the cache
CLOCKS = 1.0  # seconds by which the clock of the files may be behind ours

Record = tuple[Path, int, int, int, int | None]
"""Segment, where in it the picture begins, height, width, and the checksum until it is verified."""


class PictureStore:
    """Pictures under one fingerprint, in segments: folders `<name>.<random>` side by side.

    Every process that adds pictures has a segment of its own, so that none waits for another. `rows.bin` holds the
    pictures, `index.bin` a record for each, written after its picture: a kill at any moment loses at most that one.
    Both only grow; what others have added is noticed when a picture is missed. A picture is verified when a process
    first reads it; a damaged one counts as missing. A process that was forked or got the store pickled goes on with
    files of its own.

    Pictures are read, not mapped: into the copy that whoever changes a picture needs anyway, which takes as long, and
    a file that was cut short is an answer and not the end of the process.

    Args:
        root: the folder of all stores.
        name: the fingerprint.
        limit: bytes that all stores in `root` may take together; segments that nobody has used since this store was
            opened make room, those used longest ago first.
    """

    def __init__(self, root: Path, name: str, limit: float):
        self.root, self.name, self.limit = root, name, limit
        self.opened_at = time.time() - CLOCKS
        self.records: dict[bytes, Record] = {}
        self.taken: dict[Path, int] = {}  # segment -> bytes of its index taken note of
        self._begin_process()

    def _begin_process(self) -> None:
        self.pid = os.getpid()
        self.files: dict[Path, BinaryIO] = {}  # opened by this process, for a forked one would share the position
        self.segment: _Segment | None = None
        self.room, self.is_full = 0, False

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pid": None, "files": {}, "segment": None, "records": {}, "taken": {}}

    @property
    def path(self) -> Path:
        """What the names of all segments begin with."""
        return self.root / self.name

    def claim(self, digests: list[str]) -> int:
        """Says that these pictures are in use, so that none of them makes room; how many of them are there."""
        self._refresh()
        found = [self.records[key][0] for key in map(bytes.fromhex, digests) if key in self.records]
        for segment in set(found):
            _touch(segment)
        return len(found)

    def read(self, digest: str) -> Tensor | None:
        """The picture, uint8 `(3, height, width)` with channels innermost; None where there is none that is sound."""
        if self.pid != os.getpid():
            self._begin_process()
        key = bytes.fromhex(digest)
        if key not in self.records:
            self._refresh()
        record = self.records.get(key)
        picture = None if record is None else self._row(key, record)
        if picture is None:
            self.records.pop(key, None)
            return None
        self.records[key] = (*record[:4], None)
        return torch.from_numpy(picture).permute(2, 0, 1)

    def _row(self, key: bytes, record: Record) -> np.ndarray | None:
        segment, start, height, width, checksum = record
        row = np.empty((height, width, 3), np.uint8)
        try:
            if segment not in self.files:
                self.files[segment] = (segment / ROWS).open("rb", buffering=0)
            self.files[segment].seek(start)
            if self.files[segment].readinto(row.data.cast("B")) < row.nbytes:
                return None
        except OSError:  # removed meanwhile, or not readable any more
            return None
        return row if checksum in (None, _checksum(key, row)) else None

    def _refresh(self) -> None:
        """Takes note of what has been added. Of two records of a picture the one written later counts."""
        found = []
        if self.root.is_dir():
            for folder in self.root.glob(f"{self.name}.*"):
                if folder.name.endswith(REMOVED):
                    continue
                try:
                    status = (folder / INDEX).stat()
                except OSError:  # not begun yet, or removed
                    continue
                if status.st_size - self.taken.get(folder, 0) >= RECORD.size:
                    found.append((status.st_mtime_ns, folder))
        for _, folder in sorted(found):
            self._take(folder)

    def _take(self, folder: Path) -> None:
        """Reads the index of a segment from where it was read to; half a record at its end waits for the other half."""
        begin = self.taken.get(folder, 0)
        try:
            with (folder / INDEX).open("rb") as stream:
                stream.seek(begin)
                content = stream.read()
            written = (folder / ROWS).stat().st_size
        except OSError:
            return
        whole = len(content) // RECORD.size * RECORD.size
        for key, start, height, width, checksum in RECORD.iter_unpack(content[:whole]):
            if height and width and start + 3 * height * width <= written:
                self.records[key] = folder, start, height, width, checksum
        self.taken[folder] = begin + whole

    def add(self, digest: str, picture: Tensor) -> None:
        """Adds a picture as `read` gives it, if there is room; where there is none, that is said once."""
        if self.pid != os.getpid():
            self._begin_process()
        if self.is_full:
            return
        key, row = bytes.fromhex(digest), np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        try:
            if self.room < row.nbytes + RECORD.size and not self._get_room(row.nbytes + RECORD.size):
                self._stop(f"cache.max_gb={self.limit / GB:g} or the disk leaves no room")
                return
            self.segment = self.segment or _Segment(self._new_folder())
            start = self.segment.append(key, row)
        except (OSError, NotImplementedError) as error:  # the last: a folder that knows no locks
            self._stop(str(error))
            return
        self.room -= row.nbytes + RECORD.size
        folder = self.segment.folder
        self.records[key] = folder, start, *row.shape[:2], None
        self.taken[folder] = self.taken.get(folder, 0) + RECORD.size

    def _get_room(self, needed: int) -> bool:
        """Reserves the next so many bytes."""
        if self.segment and not self.segment.folder.is_dir():  # somebody needed the room
            self.segment = None
        self.root.mkdir(parents=True, exist_ok=True)
        step = max(needed, min(STEP, int(self.limit / 50)))
        folder = self.segment.folder if self.segment else self._new_folder()
        if not make_room(self.root, step, self.limit, folder, before=self.opened_at):
            return False
        if self.segment:
            _touch(folder)
        self.room = step
        return True

    def _new_folder(self) -> Path:
        return self.root / f"{self.name}.{uuid.uuid4().hex}"

    def _stop(self, reason: str) -> None:
        self.is_full = True
        worker = get_worker_info()
        if rank_zero_only.rank == 0 and (worker is None or worker.id == 0):
            log.warning("no more pictures are kept, the others are decoded in every epoch: %s", reason)


class _Segment:
    """The pictures that one process adds."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder = folder
        self.rows, self.index = ((folder / name).open("xb", buffering=0) for name in (ROWS, INDEX))

    def append(self, key: bytes, row: np.ndarray) -> int:
        """Where `row`, uint8 `(height, width, 3)`, begins.

        Raises:
            OSError: not all of it could be written.
        """
        start = self.rows.tell()
        _write(self.rows, row.data.cast("B"))
        _write(self.index, RECORD.pack(key, start, *row.shape[:2], _checksum(key, row)))
        return start


def _write(file: BinaryIO, content: Any) -> None:
    """Without a buffer, which would be written twice by a process that is forked."""
    if file.write(content) < len(content):
        raise OSError(f"the disk is full ({file.name})")


def _touch(folder: Path) -> None:
    """Used now."""
    try:
        os.utime(folder)
    except OSError:  # removed, or of somebody else: then it is as old as it looks
        log.debug("%s cannot be marked as used", folder)


def _checksum(key: bytes, row: np.ndarray) -> int:
    """Of a picture `(height, width, 3)`, its shape and whose it is."""
    return zlib.crc32(row.data, zlib.crc32(key + struct.pack("<II", *row.shape[:2])))
