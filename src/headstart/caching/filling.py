"""Collects the activations of one frozen prefix: reads those in the store and computes the missing ones."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from filelock import Timeout
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn

from headstart.backbones.parts import InferenceCopy
from headstart.caching.activation_store import ActivationStore, Layout, StoredRows, holding, make_room
from headstart.errors import counted
from headstart.files import GB
from headstart.inputs.base import batch_size
from headstart.progress import progress_bar

WAIT_SECONDS = 60.0
DISK = 10**9  # bytes per second at which rows are read that the system no longer has in memory
CLEARLY = 2  # how many times faster than reading counts as clearly faster
log = logging.getLogger(__name__)
T = TypeVar("T")
Inputs = Callable[[str, Sequence[int]], Iterable[Any]]


class NotCachedError(Exception):
    """Activations are not cached; the message says why."""


class Filler:
    """Finds or computes the rows of one prefix; each process of a run computes a share of them.

    If several runs need the same rows, one run computes them and the others wait. All processes of a run must be on
    one machine and make the same calls.

    Args:
        trainer: its device computes, its processes share the work.
        digests: split -> the digests of its samples, in their order.
        folder: of the store.
        limit: bytes that this store and all stores beside it may take.
        sort: split and positions -> the positions in the order in which they are computed.

    Attributes:
        found: number of rows that were in the store.
        lacking: number of rows that were missing; all processes together computed them.
        passes: number of samples whose rows this process computed.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        digests: dict[str, list[str]],
        folder: Path,
        limit: float,
        sort: Callable[[str, list[int]], list[int]] = lambda split, positions: positions,
    ):
        self.trainer, self.digests, self.folder, self.limit, self.sort = trainer, digests, folder, limit, sort
        self.ranks = trainer.strategy
        self.places = {d: (split, i) for split, found in digests.items() for i, d in enumerate(found)}
        self.found, self.lacking, self.passes = len(self.places), 0, 0

    def found_rows(self) -> dict[str, StoredRows] | None:
        """The rows of each split if all are in the store, else None. It needs no lock, so it never waits."""

        def is_complete() -> bool:
            store = ActivationStore(self.folder)
            return self.places.keys() <= store.records.keys() and not store.lacking(list(self.places))

        with suppress(NotCachedError):  # another process may just remove it
            if self._first(is_complete):
                return self._each(self._serve)
        return None

    def filled_rows(self, network: nn.Module, inputs: Inputs, must_pay: bool) -> dict[str, StoredRows]:
        """The rows of each split, after computing the missing ones.

        Args:
            network: a batch of inputs -> activations; frozen.
            inputs: split and positions -> batches of the inputs at these positions, in this order.
            must_pay: whether to refuse rows that are clearly faster to compute than to read back.

        Raises:
            NotCachedError: there is no room for the rows, the folder cannot be used, computing failed, or `must_pay`
                refuses them.
        """
        with self._locked():
            self._fill(network, inputs, must_pay)
            return self._each(self._serve)

    def _serve(self) -> dict[str, StoredRows]:
        store = ActivationStore(self.folder)
        return {split: store.serve(found) for split, found in self.digests.items()}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Locks the store for this run; the first process holds the lock for all."""
        with ExitStack() as stack:

            def took(seconds: float) -> bool:
                with suppress(Timeout):
                    stack.enter_context(holding(self.folder, seconds))
                    return True
                return False

            if not self._first(lambda: took(0)):
                log.info("waiting for another process that computes the same activations (%s)", self.folder)
                # in short waits: the other processes of this run give up if they hear nothing for half an hour
                while not self._first(lambda: took(WAIT_SECONDS)):
                    pass
            yield
            self.ranks.barrier()  # the rows must not be removed before every process has mapped them

    def _fill(self, network: nn.Module, inputs: Inputs, must_pay: bool) -> None:
        """Computes the missing rows in all processes."""
        lacking, is_ready = self._first(lambda: self._find_lacking(list(self.places)))
        self.lacking, self.found = len(lacking), len(self.places) - len(lacking)
        share = lacking[self.trainer.global_rank :: self.trainer.world_size]
        batches = self._computed([self.places[digest] for digest in share], network, inputs)
        if lacking and not is_ready:
            self._first(lambda: self._begin(batches, len(lacking), must_pay))
        self._each(lambda: self._append(batches))

    def _find_lacking(self, wanted: list[str]) -> tuple[list[str], bool]:
        """The digests without a row, and whether rows can be added now: for a new store their size is not known yet."""
        store = ActivationStore(self.folder)
        lacking = store.lacking(wanted)
        if damaged := [digest for digest in lacking if digest in store.records]:
            log.warning("%d rows of %s are damaged: they are computed again", len(damaged), self.folder)
        if not lacking or store.layout is None:
            return lacking, False
        try:
            self._make_room(store.row_bytes, len(lacking))
        except NotCachedError:
            self._make_room(store.row_bytes, len(wanted), instead=True)
            store.begin(store.layout, anew=True)  # the rows of other samples left no room for these
            return wanted, True
        return lacking, True

    def _begin(self, batches: Iterator[tuple[list[str], Tensor]], number: int, must_pay: bool) -> None:
        """Begins a store with two batches: the first shows the size of a row, the second the time to compute one."""
        began = [next(batches)]
        layout = Layout.of(began[0][1], self.trainer.lightning_module.backbone.variable_length)
        row_bytes = layout.row_bytes(began[0][1])
        if must_pay:  # checked before other stores are removed
            began += _batch_that_pays(batches, row_bytes)
        self._make_room(row_bytes, number, instead=True)
        store = ActivationStore(self.folder)
        store.begin(layout)
        for digests, values in began:
            store.append(digests, values)

    def _make_room(self, row_bytes: float, number: int, instead: bool = False) -> None:
        needed = number * row_bytes
        if not make_room(self.folder.parent, needed, self.limit, self.folder, instead):
            raise NotCachedError(
                f"{number} activations of {row_bytes / 1e3:.3g} kB take {needed / GB:.3g} GB, for which cache.max_gb="
                f"{self.limit / GB:g} or the disk leaves no room"
            )

    def _append(self, batches: Iterator[tuple[list[str], Tensor]]) -> None:
        """Computes the batches and writes them to the store."""
        store = None
        for digests, values in batches:
            store = store or ActivationStore(self.folder)
            if not store.layout.fits(values):
                raise NotCachedError("activations of samples of different lengths have no common shape")
            store.append(digests, values)

    def _computed(
        self, samples: list[tuple[str, int]], network: nn.Module, inputs_of: Inputs
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Digests and rows of samples (split, position), one batch at a time."""
        if not samples:
            return
        known = f" ({self.found:,} more are in the cache)" if self.found else ""
        log.info("frozen layers: computing the outputs of %s%s", counted(self.lacking, "sample"), known)
        with progress_bar("frozen layers", len(samples), "samples") as bar:
            copy = InferenceCopy(network)
            for split, group in groupby(sorted(samples), key=lambda sample: sample[0]):
                positions = self.sort(split, [position for _, position in group])
                digests = [self.digests[split][position] for position in positions]
                done = 0
                for inputs in inputs_of(split, positions):
                    number = batch_size(inputs)
                    yield digests[done : done + number], copy(move_data_to_device(inputs, self.ranks.root_device))
                    done += number
                    self.passes += number
                    bar.update(number)

    def _first(self, work: Callable[[], T]) -> T:
        """Runs `work` only in the first process, returns its result in all; if it fails, all raise NotCachedError."""
        outcome: tuple[Any, str | None] = None, None
        if self.trainer.is_global_zero:
            try:
                outcome = work(), None
            except Exception as error:  # as in `_each`
                outcome = None, _message(error)
        value, reason = self.ranks.broadcast(outcome)
        if reason is not None:
            raise NotCachedError(reason)
        return value

    def _each(self, work: Callable[[], T]) -> T:
        """Runs `work` in every process and waits for all; if it fails in one, all raise NotCachedError."""
        value, error = None, None
        try:
            value = work()
        except Exception as problem:  # such as a full disk or device: a run needs no cache, and others wait below
            error = problem
        if not self.ranks.reduce_boolean_decision(error is None):
            raise NotCachedError(_message(error) if error else "another process failed") from error
        return value


def _batch_that_pays(batches: Iterator[tuple[list[str], Tensor]], row_bytes: float) -> list[tuple[list[str], Tensor]]:
    """The next batch, if any, timed: computing it must not be clearly faster than reading its rows back.

    Not for the first batch: it also waits for start-up work, such as starting the loader processes.

    Raises:
        NotCachedError: computing is clearly faster.
    """
    started = time.perf_counter()
    for digests, values in batches:
        values.flatten()[0].item()  # waits for the GPU
        computing, reading = (time.perf_counter() - started) / len(digests), row_bytes / DISK
        if CLEARLY * computing < reading:
            raise NotCachedError(
                f"computing one takes {computing * 1e3:.2f} ms, reading its {row_bytes / 1e6:.3g} MB back "
                f"{reading * 1e3:.2f} ms"
            )
        return [(digests, values)]
    return []


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, (NotCachedError, OSError)) else f"{type(error).__name__}: {error}"
