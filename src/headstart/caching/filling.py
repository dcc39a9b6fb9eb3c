"""Brings the activations of one frozen prefix together: those a store has, and those still to be computed."""

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
from headstart.caching.activation_store import RECORD, ActivationStore, Layout, StoredRows, holding, make_room
from headstart.files import GB
from headstart.inputs.base import batch_size
from headstart.progress import progress_bar

WAIT_SECONDS = 60.0
DISK = 10**9  # bytes a second at which rows come back that the system no longer has in memory
CLEARLY = 2  # times as fast
log = logging.getLogger(__name__)
T = TypeVar("T")
Inputs = Callable[[str, Sequence[int]], Iterable[Any]]


class NotCachedError(Exception):
    """Activations are not kept; the message says why."""


class Filler:
    """Finds or computes the rows of one prefix; of several processes of a run each computes its share.

    Of several runs that need the same rows one computes them, and the others wait for it. All processes of a run must
    be on one machine, and call everything here alike.

    Args:
        trainer: its device computes, its processes share the work.
        digests: of each split's samples, in their order.
        folder: of the store.
        limit: bytes that this store and all beside it may take.

    Attributes:
        found: rows that were there.
        lacking: rows that were not, and were computed by all processes together.
        passes: samples that this process computed rows for.
    """

    def __init__(self, trainer: pl.Trainer, digests: dict[str, list[str]], folder: Path, limit: float):
        self.trainer, self.digests, self.folder, self.limit = trainer, digests, folder, limit
        self.ranks = trainer.strategy
        self.places = {d: (split, i) for split, found in digests.items() for i, d in enumerate(found)}
        self.found, self.lacking, self.passes = len(self.places), 0, 0

    def found_rows(self) -> dict[str, StoredRows] | None:
        """The rows of each split, if all are there: nobody need wait for whoever adds others. None otherwise."""

        def is_complete() -> bool:
            store = ActivationStore(self.folder)
            return self.places.keys() <= store.records.keys() and not store.lacking(list(self.places))

        with suppress(NotCachedError):  # somebody may remove it in this moment
            if self._first(is_complete):
                return self._each(self._serve)
        return None

    def filled_rows(self, network: nn.Module, inputs: Inputs, must_pay: bool) -> dict[str, StoredRows]:
        """Likewise, after computing those that are lacking.

        Args:
            network: a batch of inputs -> activations; frozen.
            inputs: split and positions -> batches of the inputs there, in this order.
            must_pay: whether rows that are clearly faster to compute than to read back are refused.

        Raises:
            NotCachedError: there is no room for them, the folder cannot be used, computing them failed, or they do not
                pay.
        """
        with self._held():
            self._fill(network, inputs, must_pay)
            return self._each(self._serve)

    def _serve(self) -> dict[str, StoredRows]:
        store = ActivationStore(self.folder)
        return {split: store.serve(found) for split, found in self.digests.items()}

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The store is this run's alone; its first process holds it for all."""
        with ExitStack() as stack:

            def took(seconds: float) -> bool:
                with suppress(Timeout):
                    stack.enter_context(holding(self.folder, seconds))
                    return True
                return False

            if not self._first(lambda: took(0)):
                log.info("waiting for another process that computes the same activations (%s)", self.folder)
                # the other processes are told again and again, for after half an hour of silence they would give up
                while not self._first(lambda: took(WAIT_SECONDS)):
                    pass
            yield
            self.ranks.barrier()  # until each has mapped its rows nobody may remove them

    def _fill(self, network: nn.Module, inputs: Inputs, must_pay: bool) -> None:
        """Computes what is lacking, by all processes."""
        lacking, is_ready = self._first(lambda: self._look(list(self.places)))
        self.lacking, self.found = len(lacking), len(self.places) - len(lacking)
        share = lacking[self.trainer.global_rank :: self.trainer.world_size]
        batches = self._computed([(*self.places[digest], digest) for digest in share], network, inputs)
        if lacking and not is_ready:
            self._first(lambda: self._begin(batches, len(lacking), must_pay))
        self._each(lambda: self._append(batches))

    def _look(self, wanted: list[str]) -> tuple[list[str], bool]:
        """What is lacking, and whether rows can be added at once: else it is not known yet how large they are."""
        store = ActivationStore(self.folder)
        lacking = store.lacking(wanted)
        if damaged := [digest for digest in lacking if digest in store.records]:
            log.warning("%d rows of %s are damaged: they are computed again", len(damaged), self.folder)
        if not lacking or store.layout is None:
            return lacking, False
        try:
            self._make_room(store.layout, len(lacking))
        except NotCachedError:
            self._make_room(store.layout, len(wanted), instead=True)
            store.begin(store.layout, anew=True)  # of other samples it had so many rows that these found no room
            return wanted, True
        return lacking, True

    def _begin(self, batches: Iterator[tuple[list[str], Tensor]], number: int, must_pay: bool) -> None:
        """Begins a store with the first batch, which tells how large the rows are, and the second, which how dear."""
        began = [next(batches)]
        layout = Layout.of(began[0][1])
        if must_pay:  # before others lose their room
            began += _checked(batches, layout)
        self._make_room(layout, number, instead=True)
        store = ActivationStore(self.folder)
        store.begin(layout)
        for digests, values in began:
            store.append(digests, values)

    def _make_room(self, layout: Layout, number: int, instead: bool = False) -> None:
        needed = number * (layout.row_bytes + RECORD.size)
        if not make_room(self.folder.parent, needed, self.limit, self.folder, instead):
            shape = " x ".join(map(str, layout.shape))
            raise NotCachedError(
                f"{number} activations of {shape} take {needed / GB:.3g} GB, for which cache.max_gb="
                f"{self.limit / GB:g} or the disk leaves no room"
            )

    def _append(self, batches: Iterator[tuple[list[str], Tensor]]) -> None:
        """Computes and writes."""
        store = None
        for digests, values in batches:
            store = store or ActivationStore(self.folder)
            if values.shape[1:] != store.layout.shape:
                raise NotCachedError("activations of samples of different lengths have no common shape")
            store.append(digests, values)

    def _computed(
        self, samples: list[tuple[str, int, str]], network: nn.Module, inputs_of: Inputs
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Digests and rows, a batch at a time, of samples given as split, position and digest."""
        if not samples:
            return
        with progress_bar("Frozen layers", len(samples), "samples") as bar:
            copy = InferenceCopy(network)
            for split, group in groupby(sorted(samples), key=lambda sample: sample[0]):
                _, positions, digests = zip(*group, strict=True)
                done = 0
                for inputs in inputs_of(split, positions):
                    number = batch_size(inputs)
                    yield list(digests[done : done + number]), copy(move_data_to_device(inputs, self.ranks.root_device))
                    done += number
                    self.passes += number
                    bar.update(number)

    def _first(self, work: Callable[[], T]) -> T:
        """What the run's first process finds, told to all; where it cannot, all raise a NotCachedError."""
        outcome: tuple[Any, str | None] = None, None
        if self.trainer.is_global_zero:
            try:
                outcome = work(), None
            except Exception as error:  # as in `_each`
                outcome = None, _told(error)
        value, reason = self.ranks.broadcast(outcome)
        if reason is not None:
            raise NotCachedError(reason)
        return value

    def _each(self, work: Callable[[], T]) -> T:
        """What each process finds, once all are done; where one cannot, all raise a NotCachedError."""
        value, error = None, None
        try:
            value = work()
        except Exception as problem:  # a full disk, a full device: the run can do without, and the others wait for this
            error = problem
        if not self.ranks.reduce_boolean_decision(error is None):
            raise NotCachedError(_told(error) if error else "another process failed") from error
        return value


def _checked(batches: Iterator[tuple[list[str], Tensor]], layout: Layout) -> list[tuple[list[str], Tensor]]:
    """The next batch, if any, unless it is made in clearly less time than its rows take to be read back.

    The first batch came late for much that later ones do not wait for.

    Raises:
        NotCachedError: it is.
    """
    started = time.perf_counter()
    for digests, values in batches:
        values.flatten()[0].item()  # a GPU is waited for
        computing, reading = (time.perf_counter() - started) / len(digests), layout.row_bytes / DISK
        if CLEARLY * computing < reading:
            raise NotCachedError(
                f"to make one takes {computing * 1e3:.2f} ms, to read its {layout.row_bytes / 1e6:.1f} MB back "
                f"{reading * 1e3:.2f} ms"
            )
        return [(digests, values)]
    return []


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, (NotCachedError, OSError)) else f"{type(error).__name__}: {error}"
