"""Decodes each picture once: the result of the deterministic part of its transform is kept on disk."""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from headstart.caching import fingerprint
from headstart.caching.activation_store import limit_in_bytes
from headstart.caching.picture_store import PictureStore
from headstart.data.module import DataModule, uncached
from headstart.data.samples import Samples
from headstart.inputs.transforms import Load, Transform, as_it_is

log = logging.getLogger(__name__)
TRIED = 5  # pictures whose loading is timed
DISK = 10**9  # bytes per second at which pictures are read that the system no longer has in memory


class PictureCache(Callback):
    """Keeps the pictures of train and val after decoding and the deterministic part of their transform.

    The first process that loads a picture adds it: a loader process, another process of the run, another run, or the
    activation cache. The random part still runs every time, so results with and without the cache are equal to the bit.
    Pictures are found by the content of their files, so the cache serves every split, fold and labelling.

    It is not used for a single epoch, for samples without digests (samples in memory are decoded already), or if
    reading back takes longer than decoding. The medians over `TRIED` pictures are compared: the time to load one, and
    the time to read one back (the time for a file just written, plus its bytes at `DISK`). Test pictures are used once
    and not kept.

    Args:
        root: the folder of all stores, shared with the activation cache.
        max_gb: size limit of this folder in gigabytes (10^9 bytes); stores that were used longest ago are removed.
    """

    def __init__(self, root: str, max_gb: float = 20):
        self.root, self.limit = Path(root).expanduser(), limit_in_bytes(max_gb)
        self.loads: list[tuple[Transform, Load | None]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lets the data loaders of a training run use the cache."""
        data = trainer.datamodule
        if stage != "fit" or not isinstance(data, DataModule) or data.samples.digests is None:
            return
        if trainer.fast_dev_run or trainer.max_epochs == 1:
            _log("pictures are not kept: this run uses each only once")
            return
        train, _ = data.in_two_parts(data.train_transform)
        val, _ = data.in_two_parts(data.eval_transform)
        if train is val:
            self.loads = [(train, self._cached_load(data, train, ["train", "val"]))]
        else:
            self.loads = [
                (part, self._cached_load(data, part, [split])) for part, split in ((train, "train"), (val, "val"))
            ]
        data.load_with = self.load_with

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Switches the cache off, for tests and predictions after training."""
        if isinstance(trainer.datamodule, DataModule):
            trainer.datamodule.load_with = uncached
        self.loads = []

    def load_with(self, samples: Samples, deterministic: Transform) -> Load:
        """Index -> sample after the deterministic part of a transform; cached if the loaders of this run use it."""
        found = [load for known, load in self.loads if known is deterministic and load is not None]
        return found[0] if found else uncached(samples, deterministic)

    def _cached_load(self, data: DataModule, deterministic: Transform, splits: list[str]) -> Load | None:
        """Loads pictures of these splits through the cache; None if they are not cached, and the log says why."""
        load, digests = uncached(data.samples, deterministic), data.samples.digests
        used, names = [index for split in splits for index in data.splits[split]], " and ".join(splits)
        if not used:
            return None
        try:
            if deterministic is as_it_is:
                raise NotPicturesError("the augmentation does not say which part of it is deterministic")
            name = fingerprint.of_pictures(deterministic, data.samples)
            self.root.mkdir(parents=True, exist_ok=True)
            loading, reading = _timed(load, used[:: max(len(used) // TRIED, 1)][:TRIED], self.root)
        except (fingerprint.NoFingerprintError, OSError, NotPicturesError) as reason:
            if not isinstance(reason, OtherInputError):
                _log("pictures of %s are not kept: %s", names, reason)
            return None
        times = f"decoding takes {loading * 1e3:.2f} ms, reading back {reading * 1e3:.2f} ms"
        if loading <= reading:
            _log("pictures of %s are not kept: %s", names, times)
            return None
        store = PictureStore(self.root, name, self.limit)
        found = store.claim([digests[index] for index in used])
        _log("pictures of %s are kept: %s; %d of %d are there (%s.*)", names, times, found, len(used), store.path)
        return CachedPictures(load, digests, store)


class NotPicturesError(Exception):
    """Samples that cannot be kept as pictures; the message says why."""


class OtherInputError(NotPicturesError):
    """The samples are of another kind: not worth a word."""


class CachedPictures:
    """Sample `index` after the deterministic part of a transform: from the store, or computed and added to it.

    Args:
        load: index -> this picture, computed.
        digests: of the content of each sample's file.
        store: of the results of `load`.
    """

    def __init__(self, load: Callable[[int], Tensor], digests: Any, store: PictureStore):
        self.load, self.digests, self.store = load, digests, store

    def __call__(self, index: int) -> Tensor:
        """The picture, uint8 `(3, height, width)`; a copy that the caller may change."""
        picture = self.store.read(self.digests[index])
        if picture is None:
            picture = self.load(index)
            self.store.add(self.digests[index], picture)
        return picture


def _timed(load: Load, indices: list[int], folder: Path) -> tuple[float, float]:
    """Median seconds to load one of these pictures, and to read it back from a file in `folder`.

    Raises:
        NotPicturesError: the loaded samples are not uint8 pictures.
    """
    loading, reading = [], []
    for index in indices:
        load(index)  # brings the file into the system's memory
        started = time.perf_counter()
        picture = load(index)
        loading.append(time.perf_counter() - started)
        if not isinstance(picture, Tensor) or picture.ndim < 2:
            raise OtherInputError
        if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) != 3:
            raise NotPicturesError("the deterministic part of the transform does not give uint8 (3, height, width)")
        reading.append(_time_to_read(picture.permute(1, 2, 0).numpy(), folder))
    return statistics.median(loading), statistics.median(reading)


def _time_to_read(row: np.ndarray, folder: Path) -> float:
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(row.data.cast("B"))
        started = time.perf_counter()
        file.seek(0)
        file.readinto(np.empty_like(row).data.cast("B"))
        return time.perf_counter() - started + row.nbytes / DISK


@rank_zero_only
def _log(message: str, *values: Any) -> None:
    log.debug(message, *values)
