"""Activations on disk: one row a sample, found by what was computed from what."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from headstart.files import replacing

log = logging.getLogger(__name__)
DIGEST_BYTES = 20
META, ROWS, DIGESTS = "meta.json", "rows.bin", "digests.bin"


class ActivationStore:
    """The rows of one frozen prefix, in a folder of its own that several processes may share.

    `rows.bin` holds the rows one after the other and `digests.bin` whose row is which; both only grow. A row counts
    when its digest is written, which is after the row: a kill at any moment loses at most the batch being written.

    Args:
        folder: made when it is not there.
        shape: of one row.
        dtype: of the rows.
    """

    def __init__(self, folder: Path, shape: Sequence[int], dtype: torch.dtype):
        self.folder, self.shape, self.dtype = folder, tuple(shape), dtype
        self.row_bytes = dtype.itemsize * torch.Size(self.shape).numel()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / META).exists():
            with replacing(folder / META) as stream:
                json.dump({"shape": self.shape, "dtype": str(dtype)}, stream)
        self.places: dict[str, int] = {}
        self.known = 0  # rows taken note of
        self.refresh()

    def refresh(self) -> None:
        """Takes note of what other processes have added."""
        whole = self._size(ROWS) // self.row_bytes
        if not (self.folder / DIGESTS).exists():
            return
        with (self.folder / DIGESTS).open("rb") as stream:
            stream.seek(self.known * DIGEST_BYTES)
            while self.known < whole and len(digest := stream.read(DIGEST_BYTES)) == DIGEST_BYTES:
                self.places.setdefault(digest.hex(), self.known)
                self.known += 1

    def missing(self, digests: Sequence[str]) -> list[int]:
        """The positions in `digests` of those that have no row, each digest once."""
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        return sorted(position for digest, position in first.items() if digest not in self.places)

    def append(self, digests: Sequence[str], rows: Tensor) -> None:
        """Adds one row `(len(digests), *shape)` a digest."""
        assert rows.shape[1:] == self.shape, (rows.shape, self.shape)
        with FileLock(self.folder / "append.lock"):
            whole = min(self._size(ROWS) // self.row_bytes, self._size(DIGESTS) // DIGEST_BYTES)
            raw = rows.detach().to("cpu", self.dtype).contiguous().view(torch.uint8).numpy()
            self._write(ROWS, whole * self.row_bytes, raw.tobytes())
            self._write(DIGESTS, whole * DIGEST_BYTES, bytes.fromhex("".join(digests)))
        self.refresh()

    def _write(self, name: str, start: int, content: bytes) -> None:
        with (self.folder / name).open("r+b" if (self.folder / name).exists() else "w+b") as stream:
            stream.truncate(start)  # what a killed process left half written
            stream.seek(start)
            stream.write(content)
            stream.flush()

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def rows(self) -> Tensor:
        """All rows `(n, *shape)`, mapped from disk: what is not looked at is not read."""
        total = self._size(ROWS) // self.row_bytes
        flat = torch.from_file(
            str(self.folder / ROWS), shared=False, size=total * torch.Size(self.shape).numel(), dtype=self.dtype
        )
        return flat.view(total, *self.shape)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """While one process fills the store others wait, and then find what they need."""
        lock = FileLock(self.folder / "fill.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that computes the same activations (%s)", self.folder)
            lock.acquire()
        try:
            self.refresh()
            yield
        finally:
            lock.release()


def make_room(root: Path, needed: int, limit: int, keep: Path) -> bool:
    """Removes the stores used longest ago until `needed` more bytes fit under `limit`; False where they cannot.

    Args:
        root: the folder of all stores.
        needed: bytes to come into `keep`.
        limit: bytes that all stores together may take.
        keep: the store that must stay.
    """
    stores = sorted((f for f in root.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime) if root.exists() else []
    sizes = {store: sum(file.stat().st_size for file in store.iterdir()) for store in stores}
    if sizes.get(keep, 0) + needed > limit:
        return False
    for store in stores:
        if sum(sizes.values()) + needed <= limit:
            break
        if store != keep and _unused(store):
            log.info("removing cached activations used longest ago: %s", store)
            shutil.rmtree(store, ignore_errors=True)
            del sizes[store]
    return sum(sizes.values()) + needed <= limit


def _unused(store: Path) -> bool:
    """Whether no process fills the store at the moment."""
    try:
        with FileLock(store / "fill.lock", timeout=0):
            return True
    except Timeout:
        return False


def touch(store: Path) -> None:
    """Marks a store as used now."""
    os.utime(store)
