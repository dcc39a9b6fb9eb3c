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

from headstart.caching.activation_store import INDEX, REMOVED, ROWS_FILE, make_room
from headstart.files import GB

log = logging.getLogger(__name__)
RECORD = struct.Struct("<20sQIII")  # in the index: file digest, offset of the picture, height, width, checksum
STEP = 64 * 10**6  # bytes reserved at a time, because reserving looks at every file of the cache
CLOCK_LAG = 1.0  # seconds by which the clock of the file system may be behind ours

Record = tuple[Path, int, int, int, int | None]
"""Segment, offset of the picture in it, height, width, and the checksum (None once it is verified)."""


class PictureStore:
    """Pictures under one fingerprint, in segments: folders `<name>.<random>` side by side.

    Every process that adds pictures has its own segment, so that no process waits for another. `rows.bin` holds the
    pictures. `index.bin` holds one record per picture, written after it: if the process is killed, at most one picture
    is lost. Both only grow. The pictures of other processes are found when a picture is missing here. A picture is
    verified when a process first reads it; a damaged one counts as missing. A process that was forked, or got the store
    pickled, opens its own files.

    Pictures are read, not mapped: the caller needs a copy to change anyway, so reading takes no longer; and reading a
    truncated file returns fewer bytes, where a mapped one would kill the process.

    Args:
        root: the folder of all stores.
        name: the fingerprint.
        limit: bytes that all stores in `root` may take together; segments that no process has used since this store was
            opened are removed to make room, those used longest ago first.
    """

    def __init__(self, root: Path, name: str, limit: float):
        self.root, self.name, self.limit = root, name, limit
        self.opened_at = time.time() - CLOCK_LAG
        self.records: dict[bytes, Record] = {}
        self.taken: dict[Path, int] = {}  # segment -> bytes of its index that were read
        self._begin_process()

    def _begin_process(self) -> None:
        self.pid = os.getpid()
        self.files: dict[Path, BinaryIO] = {}  # opened by this process: a forked one would share the position
        self.segment: _Segment | None = None
        self.room, self.is_full = 0, False

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pid": None, "files": {}, "segment": None, "records": {}, "taken": {}}

    @property
    def path(self) -> Path:
        """The common beginning of the paths of all segments."""
        return self.root / self.name

    def claim(self, digests: list[str]) -> int:
        """Marks the segments of these pictures as used, so that they are not removed; returns how many it has."""
        self._refresh()
        found = [self.records[key][0] for key in map(bytes.fromhex, digests) if key in self.records]
        for segment in set(found):
            _touch(segment)
        return len(found)

    def read(self, digest: str) -> Tensor | None:
        """The picture, uint8 `(3, height, width)` with channels innermost; None if it is missing or damaged."""
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
                self.files[segment] = (segment / ROWS_FILE).open("rb", buffering=0)
            self.files[segment].seek(start)
            if self.files[segment].readinto(row.data.cast("B")) < row.nbytes:
                return None
        except OSError:  # removed meanwhile, or no longer readable
            return None
        return row if checksum in (None, _checksum(key, row)) else None

    def _refresh(self) -> None:
        """Reads the records that were added since. If a picture has two records, the one written later counts."""
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
        """Reads the new records in the index of a segment; an incomplete last record is left for the next call."""
        begin = self.taken.get(folder, 0)
        try:
            with (folder / INDEX).open("rb") as stream:
                stream.seek(begin)
                content = stream.read()
            written = (folder / ROWS_FILE).stat().st_size
        except OSError:
            return
        whole = len(content) // RECORD.size * RECORD.size
        for key, start, height, width, checksum in RECORD.iter_unpack(content[:whole]):
            if height and width and start + 3 * height * width <= written:
                self.records[key] = folder, start, height, width, checksum
        self.taken[folder] = begin + whole

    def add(self, digest: str, picture: Tensor) -> None:
        """Adds a picture in the format of `read`; if there is no room, logs that once and adds no more."""
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
        except (OSError, NotImplementedError) as error:  # the second: a file system without locks
            self._stop(str(error))
            return
        self.room -= row.nbytes + RECORD.size
        folder = self.segment.folder
        self.records[key] = folder, start, *row.shape[:2], None
        self.taken[folder] = self.taken.get(folder, 0) + RECORD.size

    def _get_room(self, needed: int) -> bool:
        """Reserves room for at least `needed` bytes; False if there is none."""
        if self.segment and not self.segment.folder.is_dir():  # another process removed it to make room
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
        self.rows, self.index = ((folder / name).open("xb", buffering=0) for name in (ROWS_FILE, INDEX))

    def append(self, key: bytes, row: np.ndarray) -> int:
        """Writes `row`, uint8 `(height, width, 3)`, and its record; returns the offset of the row in bytes.

        Raises:
            OSError: it could not be written completely.
        """
        start = self.rows.tell()
        _write(self.rows, row.data.cast("B"))
        _write(self.index, RECORD.pack(key, start, *row.shape[:2], _checksum(key, row)))
        return start


def _write(file: BinaryIO, content: Any) -> None:
    """Writes without a buffer: a forked process would write the buffer a second time."""
    if file.write(content) < len(content):
        raise OSError(f"the disk is full ({file.name})")


def _touch(folder: Path) -> None:
    """Sets the time of last use to now."""
    try:
        os.utime(folder)
    except OSError:  # removed, or owned by another user: its time of last use stays
        log.debug("%s cannot be marked as used", folder)


def _checksum(key: bytes, row: np.ndarray) -> int:
    """The checksum of a picture `(height, width, 3)`, its shape and the digest of its file."""
    return zlib.crc32(row.data, zlib.crc32(key + struct.pack("<II", *row.shape[:2])))
