"""Activations on disk: one row a sample, found by what was computed from what."""

import hashlib
import json
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from headstart.errors import UsageError
from headstart.files import GB, replacing

log = logging.getLogger(__name__)
META, ROWS, INDEX, LOCK, REMOVED = "meta.json", "rows.bin", "index.bin", "append.lock", ".removed"
FILES = (META, ROWS, INDEX, LOCK)
RECORD = struct.Struct("<20sQI")  # of the index: a sample's digest, the place of its row, the row's checksum
FLOATS = {str(dtype): dtype for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)}


@dataclass(frozen=True)
class Layout:
    """How one sample's activation lies in its row.

    Args:
        shape: without the batch.
        channels_last: whether the channels lie innermost, as the part of the network that goes on wants them.
        dtype: as torch writes it, `torch.float32`.
    """

    shape: tuple[int, ...]
    channels_last: bool
    dtype: str

    @classmethod
    def of(cls, values: Tensor) -> "Layout":
        """That of a batch `(batch, *shape)`."""
        is_plain = values.is_contiguous()  # a map of one pixel is both
        is_last = values.ndim == 4 and not is_plain and values.is_contiguous(memory_format=torch.channels_last)
        return cls(tuple(values.shape[1:]), is_last, str(values.dtype))

    @property
    def numel(self) -> int:
        """Numbers in a row."""
        return torch.Size(self.shape).numel()

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.numel * FLOATS[self.dtype].itemsize

    def flatten(self, values: Tensor) -> Tensor:
        """A batch `(batch, *shape)` -> rows `(batch, numel)` on the CPU, in the order of the memory."""
        values = values.detach().cpu()
        return (values.permute(0, 2, 3, 1) if self.channels_last else values).reshape(len(values), -1).contiguous()

    def unflatten(self, rows: Tensor) -> Tensor:
        """Rows `(batch, numel)` -> the batch `(batch, *shape)` they were, in its memory format, without a copy."""
        if not self.channels_last:
            return rows.view(len(rows), *self.shape)
        channels, height, width = self.shape
        return rows.view(len(rows), height, width, channels).permute(0, 3, 1, 2)


class StoredRows:
    """The activations of one split, mapped from disk: what is not looked at is not read.

    Stays usable when the store is removed meanwhile (where the system lets a mapped file be removed at all).

    Args:
        rows: `(n, numel)`, those of a store.
        places: `(len(split),)`, the row of each sample of the split.
        layout: how a row is to be read.
    """

    def __init__(self, rows: Tensor, places: Tensor, layout: Layout):
        self.rows, self.places, self.layout = rows, places, layout

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """The activations `(len(positions), *shape)` of the samples at these positions of the split."""
        return self.layout.unflatten(self.rows[self.places[torch.as_tensor(positions)]])


class ActivationStore:
    """The rows of one frozen prefix, in a folder of its own that several processes may share.

    `rows.bin` holds the rows, `index.bin` a record for each that says whose it is, where, and with which checksum. Both
    only grow, and a record is written after its row: a kill at any moment loses at most the batch being written. What
    was damaged since is noticed by its checksum and computed again; the newest record of a sample counts.

    Args:
        folder: need not exist yet.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.records: dict[str, tuple[int, int]] = {}  # digest -> place and checksum
        self.read = 0  # bytes of the index taken note of
        self.layout, self.born = self._read_meta()
        self.refresh()

    def _read_meta(self) -> tuple[Layout | None, str]:
        """The layout, None where there is none yet or it is damaged, and what tells a store from one in its place."""
        try:
            meta = json.loads((self.folder / META).read_text(encoding="utf-8"))
            layout = Layout(tuple(meta["shape"]), meta["channels_last"], meta["dtype"])
            return (layout, meta["born"]) if meta["check"] == _check(layout) else (None, "")
        except (OSError, ValueError, KeyError, TypeError):
            return None, ""

    def begin(self, layout: Layout, anew: bool = False) -> None:
        """Makes the store ready for rows of this layout, empty if it is damaged, of another layout, or to be `anew`."""
        if anew or self._read_meta()[0] != layout:
            # removed, never cut short: another process may have the old rows mapped
            for name in (META, INDEX, ROWS):
                (self.folder / name).unlink(missing_ok=True)
            self.records, self.read, self.born = {}, 0, uuid4().hex
            with replacing(self.folder / META) as stream:
                json.dump(asdict(layout) | {"check": _check(layout), "born": self.born}, stream)
        self.layout = layout

    def refresh(self) -> None:
        """Takes note of what other processes have added."""
        if self.layout is None:
            return
        written = self._size(ROWS) // self.layout.row_bytes
        whole = self._size(INDEX) // RECORD.size * RECORD.size
        if whole <= self.read:
            return
        with (self.folder / INDEX).open("rb") as stream:
            stream.seek(self.read)
            content = stream.read(whole - self.read)
        for digest, place, checksum in RECORD.iter_unpack(content[: len(content) // RECORD.size * RECORD.size]):
            if place < written:
                self.records[digest.hex()] = place, checksum
        self.read += len(content) // RECORD.size * RECORD.size

    def lacking(self, digests: Sequence[str]) -> list[str]:
        """Those without a sound row, each once, in their order. Reads every row asked for."""
        wanted = dict.fromkeys(digests)
        found = [digest for digest in wanted if digest in self.records]
        damaged = self._damaged(found)
        return [digest for digest in wanted if digest not in self.records or digest in damaged]

    def _damaged(self, digests: list[str]) -> set[str]:
        if not digests:
            return set()
        rows = self.rows().view(torch.uint8).numpy()
        in_order = sorted(digests, key=self.records.__getitem__)
        return {d for d in in_order if _checksum(d, rows[self.records[d][0]]) != self.records[d][1]}

    def append(self, digests: Sequence[str], values: Tensor) -> None:
        """Adds a row for each digest, `values` being `(len(digests), *shape)` in whatever memory format.

        Raises:
            ValueError: they are not of this shape or dtype.
        """
        expected, given = (len(digests), *self.layout.shape), tuple(values.shape)
        if given != expected or str(values.dtype) != self.layout.dtype:
            raise ValueError(f"{given} {values.dtype} where {expected} {self.layout.dtype} was expected")
        rows = self.layout.flatten(values).view(torch.uint8).numpy()
        with FileLock(self.folder / LOCK):
            first = self._add(ROWS, self.layout.row_bytes, rows.tobytes())
            records = [
                RECORD.pack(bytes.fromhex(digest), first + i, _checksum(digest, rows[i]))
                for i, digest in enumerate(digests)
            ]
            self._add(INDEX, RECORD.size, b"".join(records))

    def _add(self, name: str, unit: int, content: bytes) -> int:
        """Appends from the next multiple of `unit` on, behind what a killed process left; the number of that place."""
        place = -(-self._size(name) // unit)
        path = self.folder / name
        with path.open("r+b" if path.exists() else "w+b") as stream:
            stream.seek(place * unit)
            stream.write(content)
        return place

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def rows(self) -> Tensor:
        """All rows `(n, numel)`, mapped from disk."""
        assert self.layout is not None
        total = self._size(ROWS) // self.layout.row_bytes
        path, size = str(self.folder / ROWS), total * self.layout.numel
        flat = torch.from_file(path, shared=False, size=size, dtype=FLOATS[self.layout.dtype])
        return flat.view(total, self.layout.numel)

    def serve(self, digests: Sequence[str]) -> StoredRows:
        """The rows of these samples, which must be there.

        Raises:
            FileNotFoundError: another process has begun the store anew since its index was read.
        """
        places = torch.tensor([self.records[digest][0] for digest in digests])
        os.utime(self.folder)  # used now
        rows = self.rows()
        if self._read_meta()[1] != self.born:  # whose first deed is to remove the old one, before any row is
            raise FileNotFoundError(f"{self.folder} was begun anew")
        return StoredRows(rows, places, self.layout)


def _check(layout: Layout) -> str:
    return hashlib.blake2b(repr(layout).encode(), digest_size=8).hexdigest()


def _checksum(digest: str, row: memoryview) -> int:
    """Of a row and whose it is."""
    return zlib.crc32(row, zlib.crc32(digest.encode()))


def limit_in_bytes(max_gb: float) -> float:
    """Of the setting `cache.max_gb`.

    Raises:
        UsageError: it leaves no room at all.
    """
    if not max_gb > 0:
        raise UsageError(f"cache.max_gb={max_gb}: give a number of gigabytes above 0; to keep nothing: cache=off")
    return max_gb * GB


@contextmanager
def holding(folder: Path, seconds: float = -1) -> Iterator[None]:
    """While one process fills a store others wait, and then find what they need; nobody removes it meanwhile.

    Raises:
        Timeout: another process still has it after so many seconds; below 0 they have no end.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder).acquire(timeout=seconds):
        folder.mkdir(exist_ok=True)
        yield


def _lock(folder: Path) -> FileLock:
    """Beside the folder, so that it outlives it: a lock whose file can be removed is held by two.

    Folders whose names differ behind a dot have one lock, as that number of them is not bounded.
    """
    return FileLock(folder.with_name(f"{folder.name.partition('.')[0]}.lock"))


def make_room(
    root: Path, needed: int, limit: float, keep: Path, instead: bool = False, before: float = float("inf")
) -> bool:
    """Removes the stores used longest ago until `needed` more bytes fit under `limit`; False where they cannot.

    Runs that fill several stores at once may pass the limit together; the next one to need room sets that right.

    Args:
        root: the folder of all stores.
        needed: bytes to come into `keep`.
        limit: bytes that all stores together may take.
        keep: the store that must stay; the caller holds it.
        instead: whether they come in place of all that `keep` has.
        before: stores used at this time or later stay as well, in seconds since 1970.
    """
    found = _found(root)
    sizes = {store: size for store, (_, size) in found.items()} | ({keep: 0} if instead else {})
    if sizes.get(keep, 0) + needed > limit:
        return False
    for store in list(sizes):
        if sum(sizes.values()) + needed <= limit:
            break
        if store != keep and found[store][0] < before and _remove(store):
            del sizes[store]
    return sum(sizes.values()) + needed <= limit and needed <= shutil.disk_usage(root).free


def _found(root: Path) -> dict[Path, tuple[float, int]]:
    """When each store was used and its bytes, longest ago first. Another process may be removing some right now.

    A folder that holds anything but a store's files is none: whatever lies under `root` by mistake is never removed.
    """
    found = {}
    for folder in root.iterdir():
        try:
            files = list(folder.iterdir()) if folder.is_dir() else []
            if files and all(file.name.startswith(FILES) for file in files):
                found[folder] = folder.stat().st_mtime, sum(file.stat().st_size for file in files)
        except FileNotFoundError:
            continue
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _remove(store: Path) -> bool:
    """Removes a store, unless a process fills it at the moment."""
    try:
        with _lock(store).acquire(timeout=0):
            if not store.name.endswith(REMOVED):  # whole or not at all, also for whoever looks at it right now
                log.info("removing what the cache used longest ago: %s", store)
                store = store.rename(store.with_name(store.name + REMOVED))
            shutil.rmtree(store)
    except (Timeout, OSError):
        return False
    return True
