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
# in the index: the sample's digest, its first unit in rows.bin, the number of its units, their checksum
RECORD = struct.Struct("<20sQII")
FLOATS = {str(dtype): dtype for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)}


@dataclass(frozen=True)
class Layout:
    """How the activation of one sample is stored in its row: as one unit or, if lengths differ, one unit per place.

    Args:
        shape: of one unit.
        channels_last: whether the channels are innermost in memory, as the next layers expect them.
        dtype: as torch writes it, for example `torch.float32`.
        places: whether the dimension before `shape` is the place in the sample: it has another length in each sample.
    """

    shape: tuple[int, ...]
    channels_last: bool
    dtype: str
    places: bool = False

    @classmethod
    def of(cls, values: Tensor, variable_length: bool = False) -> "Layout":
        """The layout of a batch `(batch, ...)`.

        Args:
            values: the batch.
            variable_length: as `Backbone.variable_length`. A batch of feature vectors has no places any more.
        """
        places = variable_length and values.ndim > 2
        is_plain = values.is_contiguous()  # a feature map of one pixel has both memory formats
        is_last = values.ndim == 4 and not is_plain and values.is_contiguous(memory_format=torch.channels_last)
        return cls(tuple(values.shape[2 if places else 1 :]), is_last, str(values.dtype), places)

    def fits(self, values: Tensor) -> bool:
        """Whether a batch has this layout."""
        return tuple(values.shape[2 if self.places else 1 :]) == self.shape and str(values.dtype) == self.dtype

    @property
    def numel(self) -> int:
        """Number of values in a unit."""
        return torch.Size(self.shape).numel()

    @property
    def unit_bytes(self) -> int:
        """Bytes of a unit."""
        return self.numel * FLOATS[self.dtype].itemsize

    def counts(self, values: Tensor) -> list[int]:
        """The number of units of each sample of a batch: its places without the zeros behind its end, at least 1."""
        if not self.places:
            return [1] * len(values)
        used = values.flatten(2).ne(0).any(dim=2)
        numbers = torch.arange(1, values.shape[1] + 1, device=values.device)
        return (used * numbers).amax(dim=1).clamp_min(1).tolist()

    def row_bytes(self, values: Tensor) -> float:
        """The mean number of bytes that a sample of a batch takes, with its record."""
        return self.unit_bytes * sum(self.counts(values)) / len(values) + RECORD.size

    def flatten(self, values: Tensor) -> list[Tensor]:
        """A batch -> the units of each sample, `(units, numel)` on the CPU, in the order of the memory."""
        values = values.detach().cpu()
        values = values.permute(0, 2, 3, 1) if self.channels_last else values
        return [
            row.reshape(-1, self.numel)[:count].contiguous()
            for row, count in zip(values, self.counts(values), strict=True)
        ]

    def unflatten(self, units: Tensor) -> Tensor:
        """Units `(batch, numel)` or, with places, `(batch, places, numel)` -> the batch in its memory format."""
        if self.places:
            return units.view(*units.shape[:2], *self.shape)
        if not self.channels_last:
            return units.view(len(units), *self.shape)
        channels, height, width = self.shape
        return units.view(len(units), height, width, channels).permute(0, 3, 1, 2)


class StoredRows:
    """The activations of one split, mapped from disk: only the rows that are used are read.

    They stay usable if the store is removed meanwhile (on systems that can remove a mapped file).

    Args:
        units: `(n, numel)`, all units of a store.
        first: `(len(split),)`, the first unit of each sample of the split.
        counts: `(len(split),)`, the number of its units.
        layout: how to read a unit.
    """

    def __init__(self, units: Tensor, first: Tensor, counts: Tensor, layout: Layout):
        self.units, self.first, self.counts, self.layout = units, first, counts, layout

    @property
    def bytes(self) -> int:
        """Bytes of the activations of the split."""
        return int(self.counts.sum()) * self.layout.unit_bytes

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """The activations `(len(positions), ...)` of the samples at these positions of the split.

        If lengths differ, shorter ones are filled up with zeros to the longest of these samples.
        """
        chosen = torch.as_tensor(positions)
        first, counts = self.first[chosen], self.counts[chosen]
        if not self.layout.places:
            return self.layout.unflatten(self.units[first])
        is_used = torch.arange(int(counts.max()))[None] < counts[:, None]
        found = torch.zeros(*is_used.shape, self.layout.numel, dtype=self.units.dtype)
        numbers = first[:, None] + torch.arange(is_used.shape[1])
        found[is_used] = self.units[numbers[is_used]]
        return self.layout.unflatten(found)


class ActivationStore:
    """The rows of one frozen prefix, in its own folder, which several processes may share.

    `rows.bin` holds the rows, each of one or more units. `index.bin` holds one record per row: the sample's digest, the
    first unit, the number of units, the checksum. Both only grow, and a record is written after its row: if the process
    is killed, at most the current batch is lost. The checksum shows damaged rows, which are computed again; the newest
    record of a sample counts.

    Args:
        folder: may not exist yet.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.records: dict[str, tuple[int, int, int]] = {}  # digest -> first unit, number of units, checksum
        self.read = 0  # bytes of the index that were read
        self.layout, self.born = self._read_meta()
        self.refresh()

    def _read_meta(self) -> tuple[Layout | None, str]:
        """The layout (None if it is missing or damaged), and the random id that `begin` gave to the store."""
        try:
            meta = json.loads((self.folder / META).read_text(encoding="utf-8"))
            layout = Layout(tuple(meta["shape"]), meta["channels_last"], meta["dtype"], meta["places"])
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
        written = self._size(ROWS_FILE) // self.layout.unit_bytes
        whole = self._size(INDEX) // RECORD.size * RECORD.size
        if whole <= self.read:
            return
        with (self.folder / INDEX).open("rb") as stream:
            stream.seek(self.read)
            content = stream.read(whole - self.read)
        for digest, first, count, checksum in RECORD.iter_unpack(content[: len(content) // RECORD.size * RECORD.size]):
            if first + count <= written:
                self.records[digest.hex()] = first, count, checksum
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
        units = self.units().view(torch.uint8).numpy()
        damaged = set()
        for digest in sorted(digests, key=self.records.__getitem__):
            first, count, checksum = self.records[digest]
            if _checksum(digest, units[first : first + count]) != checksum:
                damaged.add(digest)
        return damaged

    def append(self, digests: Sequence[str], values: Tensor) -> None:
        """Adds a row for each digest; `values` are a batch `(len(digests), ...)` in any memory format.

        Raises:
            ValueError: `values` have another shape or dtype.
        """
        if len(values) != len(digests) or not self.layout.fits(values):
            raise ValueError(f"{tuple(values.shape)} {values.dtype} for {len(digests)} samples of {self.layout}")
        rows = [units.view(torch.uint8).numpy() for units in self.layout.flatten(values)]
        with FileLock(self.folder / LOCK):
            first = self._add(ROWS_FILE, self.layout.unit_bytes, b"".join(row.tobytes() for row in rows))
            records = []
            for digest, row in zip(digests, rows, strict=True):
                records.append(RECORD.pack(bytes.fromhex(digest), first, len(row), _checksum(digest, row)))
                first += len(row)
            self._add(INDEX, RECORD.size, b"".join(records))

    def _add(self, name: str, unit: int, content: bytes) -> int:
        """Appends at the next multiple of `unit` bytes, after what a killed process left; returns that number."""
        place = -(-self._size(name) // unit)
        path = self.folder / name
        with path.open("r+b" if path.exists() else "w+b") as stream:
            stream.seek(place * unit)
            stream.write(content)
        return place

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def units(self) -> Tensor:
        """All units `(n, numel)`, mapped from disk."""
        assert self.layout is not None
        total = self._size(ROWS_FILE) // self.layout.unit_bytes
        path, size = str(self.folder / ROWS_FILE), total * self.layout.numel
        flat = torch.from_file(path, shared=False, size=size, dtype=FLOATS[self.layout.dtype])
        return flat.view(total, self.layout.numel)

    def serve(self, digests: Sequence[str]) -> StoredRows:
        """The rows of these samples, which must be in the store.

        Raises:
            FileNotFoundError: another process has emptied the store since its index was read.
        """
        records = torch.tensor([self.records[digest][:2] for digest in digests]).view(-1, 2)
        os.utime(self.folder)  # the time of last use, for `make_room`
        units = self.units()
        if self._read_meta()[1] != self.born:  # `begin` removes the old id before it writes a row
            raise FileNotFoundError(f"{self.folder} was begun anew")
        return StoredRows(units, records[:, 0], records[:, 1], self.layout)

    @property
    def row_bytes(self) -> float:
        """The mean number of bytes of a row with its record, from the rows that are there; of one unit if none is."""
        counts = [count for _, count, _ in self.records.values()] or [1]
        return self.layout.unit_bytes * sum(counts) / len(counts) + RECORD.size


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
