"""Activations on disk: one row per sample, found by the fingerprint of the frozen layers and of the sample."""

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
META, ROWS_FILE, INDEX, LOCK, REMOVED = "meta.json", "rows.bin", "index.bin", "append.lock", ".removed"
FILES = (META, ROWS_FILE, INDEX, LOCK)
RECORD = struct.Struct("<20sQI")  # in the index: the sample's digest, the number of its row, the row's checksum
FLOATS = {str(dtype): dtype for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)}


@dataclass(frozen=True)
class Layout:
    """How the activation of one sample is stored in its row.

    Args:
        shape: without the batch dimension.
        channels_last: whether the channels are innermost in memory, as the next layers expect them.
        dtype: as torch writes it, for example `torch.float32`.
    """

    shape: tuple[int, ...]
    channels_last: bool
    dtype: str

    @classmethod
    def of(cls, values: Tensor) -> "Layout":
        """The layout of a batch `(batch, *shape)`."""
        is_plain = values.is_contiguous()  # a feature map of one pixel has both memory formats
        is_last = values.ndim == 4 and not is_plain and values.is_contiguous(memory_format=torch.channels_last)
        return cls(tuple(values.shape[1:]), is_last, str(values.dtype))

    @property
    def numel(self) -> int:
        """Number of values in a row."""
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
        """Rows `(batch, numel)` -> the original batch `(batch, *shape)` in its memory format, without a copy."""
        if not self.channels_last:
            return rows.view(len(rows), *self.shape)
        channels, height, width = self.shape
        return rows.view(len(rows), height, width, channels).permute(0, 3, 1, 2)


class StoredRows:
    """The activations of one split, mapped from disk: only the rows that are used are read.

    They stay usable if the store is removed meanwhile (on systems that can remove a mapped file).

    Args:
        rows: `(n, numel)`, all rows of a store.
        places: `(len(split),)`, the row number of each sample of the split.
        layout: how to read a row.
    """

    def __init__(self, rows: Tensor, places: Tensor, layout: Layout):
        self.rows, self.places, self.layout = rows, places, layout

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """The activations `(len(positions), *shape)` of the samples at these positions of the split."""
        return self.layout.unflatten(self.rows[self.places[torch.as_tensor(positions)]])


class ActivationStore:
    """The rows of one frozen prefix, in its own folder, which several processes may share.

    `rows.bin` holds the rows. `index.bin` holds one record per row: the sample's digest, the row number, the checksum.
    Both only grow, and a record is written after its row: if the process is killed, at most the current batch is lost.
    The checksum shows damaged rows, which are computed again; the newest record of a sample counts.

    Args:
        folder: may not exist yet.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.records: dict[str, tuple[int, int]] = {}  # digest -> row number and checksum
        self.read = 0  # bytes of the index that were read
        self.layout, self.born = self._read_meta()
        self.refresh()

    def _read_meta(self) -> tuple[Layout | None, str]:
        """The layout (None if it is missing or damaged), and the random id that `begin` gave to the store."""
        try:
            meta = json.loads((self.folder / META).read_text(encoding="utf-8"))
            layout = Layout(tuple(meta["shape"]), meta["channels_last"], meta["dtype"])
            return (layout, meta["born"]) if meta["check"] == _check(layout) else (None, "")
        except (OSError, ValueError, KeyError, TypeError):
            return None, ""

    def begin(self, layout: Layout, anew: bool = False) -> None:
        """Prepares the store for rows of this layout; empties it if damaged, of another layout, or `anew`."""
        if anew or self._read_meta()[0] != layout:
            # files are removed, never truncated: another process may have the old rows mapped
            for name in (META, INDEX, ROWS_FILE):
                (self.folder / name).unlink(missing_ok=True)
            self.records, self.read, self.born = {}, 0, uuid4().hex
            with replacing(self.folder / META) as stream:
                json.dump(asdict(layout) | {"check": _check(layout), "born": self.born}, stream)
        self.layout = layout

    def refresh(self) -> None:
        """Reads the records that other processes have added."""
        if self.layout is None:
            return
        written = self._size(ROWS_FILE) // self.layout.row_bytes
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
        """The digests without an undamaged row, each once, in the given order. Reads all these rows to check them."""
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
        """Adds a row for each digest; `values` are `(len(digests), *shape)` in any memory format.

        Raises:
            ValueError: `values` have another shape or dtype.
        """
        expected, given = (len(digests), *self.layout.shape), tuple(values.shape)
        if given != expected or str(values.dtype) != self.layout.dtype:
            raise ValueError(f"{given} {values.dtype} where {expected} {self.layout.dtype} was expected")
        rows = self.layout.flatten(values).view(torch.uint8).numpy()
        with FileLock(self.folder / LOCK):
            first = self._add(ROWS_FILE, self.layout.row_bytes, rows.tobytes())
            records = [
                RECORD.pack(bytes.fromhex(digest), first + i, _checksum(digest, rows[i]))
                for i, digest in enumerate(digests)
            ]
            self._add(INDEX, RECORD.size, b"".join(records))

    def _add(self, name: str, unit: int, content: bytes) -> int:
        """Appends at the next multiple of `unit` bytes, after what a killed process left; returns the row number."""
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
        total = self._size(ROWS_FILE) // self.layout.row_bytes
        path, size = str(self.folder / ROWS_FILE), total * self.layout.numel
        flat = torch.from_file(path, shared=False, size=size, dtype=FLOATS[self.layout.dtype])
        return flat.view(total, self.layout.numel)

    def serve(self, digests: Sequence[str]) -> StoredRows:
        """The rows of these samples, which must be in the store.

        Raises:
            FileNotFoundError: another process has emptied the store since its index was read.
        """
        places = torch.tensor([self.records[digest][0] for digest in digests])
        os.utime(self.folder)  # the time of last use, for `make_room`
        rows = self.rows()
        if self._read_meta()[1] != self.born:  # `begin` removes the old id before it writes a row
            raise FileNotFoundError(f"{self.folder} was begun anew")
        return StoredRows(rows, places, self.layout)


def _check(layout: Layout) -> str:
    return hashlib.blake2b(repr(layout).encode(), digest_size=8).hexdigest()


def _checksum(digest: str, row: memoryview) -> int:
    """The checksum of a row and its sample's digest."""
    return zlib.crc32(row, zlib.crc32(digest.encode()))


def limit_in_bytes(max_gb: float) -> float:
    """The setting `cache.max_gb` in bytes.

    Raises:
        UsageError: it is not above 0.
    """
    if not max_gb > 0:
        raise UsageError(f"cache.max_gb={max_gb}: give a number of gigabytes above 0; to have no cache: cache=off")
    return max_gb * GB


@contextmanager
def holding(folder: Path, seconds: float = -1) -> Iterator[None]:
    """Locks a store while this process fills it: other processes wait, and none removes it meanwhile.

    Args:
        folder: of the store.
        seconds: how long to wait for the lock; below 0: without end.

    Raises:
        Timeout: another process still holds the lock after this time.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder).acquire(timeout=seconds):
        folder.mkdir(exist_ok=True)
        yield


def _lock(folder: Path) -> FileLock:
    """The lock of a store, beside its folder: if its file were removed with the folder, two processes could hold it.

    Folders whose names differ only after the dot share one lock, so that the number of lock files stays small.
    """
    return FileLock(folder.with_name(f"{folder.name.partition('.')[0]}.lock"))


def make_room(
    root: Path, needed: int, limit: float, keep: Path, instead: bool = False, before: float = float("inf")
) -> bool:
    """Removes the stores used longest ago until `needed` more bytes fit under `limit`; False if they cannot fit.

    Runs that fill several stores at the same time may exceed the limit together; the next call corrects that.

    Args:
        root: the folder of all stores.
        needed: bytes that will be added to `keep`.
        limit: bytes that all stores together may take.
        keep: the store that must stay; the caller holds its lock.
        instead: whether the new bytes replace the present content of `keep`.
        before: stores used at this time or later (in seconds since 1970) stay, too.
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
    """Time of last use and size in bytes of each store, longest ago first. Another process may just remove some.

    A folder with any other file is not a store, so other files under `root` are never removed.
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
    """Removes a store, unless a process is filling it."""
    try:
        with _lock(store).acquire(timeout=0):
            if not store.name.endswith(REMOVED):  # renamed first: other processes see all of it or nothing
                log.info("removing the store of the cache that was used longest ago: %s", store)
                store = store.rename(store.with_name(store.name + REMOVED))
            shutil.rmtree(store)
    except (Timeout, OSError):
        return False
    return True
