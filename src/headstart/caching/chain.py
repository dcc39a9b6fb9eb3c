"""Computes the rows of several frozen prefixes in one pass: each layer group runs once per sample for all stages."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.backbones.parts import NoCleanCutError, in_parts, in_two_parts
from headstart.caching import fingerprint
from headstart.caching.activation_store import Layout, StoredRows
from headstart.caching.filling import Filler, Inputs, NotCachedError
from headstart.errors import counted
from headstart.files import GB

log = logging.getLogger(__name__)
NOT_KEPT = "the activations behind %s are not kept for a later stage: %s"
ONLY_SHORTER = (
    "the backbone cannot be cut behind its %d frozen groups, only behind %d: the others are computed in each epoch"
)
SAMPLED = 32  # samples whose rows show the mean size of a row if lengths differ
Rows = tuple[int, dict[str, StoredRows]]


@dataclass(frozen=True)
class Cut:
    """The backbone cut in two behind the first `groups` layer groups."""

    groups: int
    prefix: nn.Module
    rest: nn.Module


class Chain:
    """Finds or computes the rows of a stage and, while it computes, also the rows of later stages.

    It goes from inputs to the shortest prefix, from its rows to the next prefix, and so on to the stage's own. If a
    shorter prefix fails, the log says so, and the later stage tries it again. The store of a prefix is the same for
    each way to compute its rows. All processes of a run must make the same calls.

    Args:
        trainer: its module has the backbone, its data module the samples.
        inputs: split and positions -> batches of inputs at these positions, in this order.
        digests: split -> the digests of its samples, in their order.
        root: the folder of all stores.
        limit: bytes that all stores together may take.
        must_pay: whether to refuse rows that are clearly faster to compute than to read back.
        sort: as for `Filler`.

    Attributes:
        passes: samples that this process has sent through a prefix.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        inputs: Inputs,
        digests: dict[str, list[str]],
        root: Path,
        limit: float,
        must_pay: bool = True,
        sort: Callable[[str, list[int]], list[int]] = lambda split, positions: positions,
    ):
        self.trainer, self.inputs, self.digests, self.root, self.limit = trainer, inputs, digests, root, limit
        self.must_pay, self.sort = must_pay, sort
        self.backbone, self.data = trainer.lightning_module.backbone, trainer.datamodule
        self.passes = 0

    def rows(self, groups: int, shorter: Sequence[int]) -> tuple[nn.Module, dict[str, StoredRows]]:
        """The rest of the backbone behind a prefix, and the rows of this prefix.

        The prefix has fewer than `groups` layer groups if the backbone cannot be cut there.

        Args:
            groups: number of leading layer groups that are frozen in this stage.
            shorter: the same numbers of later stages.

        Raises:
            NotCachedError: the rows cannot be cached.
            NoCleanCutError: the backbone cannot be cut anywhere.
            NoFingerprintError: something that the rows depend on has no fingerprint.
        """
        cut = _cut(self.backbone, groups)
        if cut.groups < groups:
            log.debug(ONLY_SHORTER, groups, cut.groups)
        filler = self._filler(cut)
        rows = filler.found_rows()
        if rows is not None:
            log.info("frozen layers: the outputs of %s are in the cache", counted(filler.found, "sample"))
        else:
            rows = self._computed(cut, filler, self._rows_of_shorter(cut, shorter))
        self._log_counts(cut, filler, rows, "")
        return cut.rest, rows

    def _rows_of_shorter(self, last: Cut, shorter: Sequence[int]) -> Rows | None:
        """Caches the rows of shorter prefixes where possible; returns length and rows of the longest of them."""
        source = None
        for cut in self._shorter_that_fit(last, shorter):
            try:
                filler = self._filler(cut)
                rows = filler.found_rows() or self._computed(cut, filler, source)
            except (NotCachedError, fingerprint.NoFingerprintError) as reason:
                log.debug(NOT_KEPT, counted(cut.groups, "group"), reason)
                continue
            self._log_counts(cut, filler, rows, " for a later stage")
            source = cut.groups, rows
        return source

    def _shorter_that_fit(self, last: Cut, shorter: Sequence[int]) -> list[Cut]:
        """The shorter prefixes, ascending; skips prefixes that would evict rows needed earlier."""
        cuts = {}
        for groups in shorter:
            with suppress(NoCleanCutError):  # the later stage will log it
                cut = _cut(self.backbone, groups)
                cuts[cut.groups] = cut
        if not cuts:
            return []
        room, fitting = self.limit - self._bytes(last), []
        for cut in (cuts[groups] for groups in sorted(cuts, reverse=True) if groups < last.groups):
            room -= self._bytes(cut)
            if room < 0:
                room_is = f"cache.max_gb={self.limit / GB:g} has no room for them beside others"
                log.debug(NOT_KEPT, counted(cut.groups, "group"), room_is)
                break
            fitting.insert(0, cut)
        return fitting

    @torch.no_grad()
    def _bytes(self, cut: Cut) -> float:
        """Bytes that the rows of a prefix take, computed from the rows of a few samples."""
        indices = self.data.splits[next(iter(self.digests))]
        number = SAMPLED if self.backbone.variable_length else 1
        chosen = indices[:: max(len(indices) // number, 1)][:number]
        deterministic, random = self.data.in_two_parts(self.data.eval_transform)
        load = self.data.load_with(self.data.samples, deterministic)  # perhaps from the cache
        batch = self.data.collate([random(load(index)) for index in chosen])
        values = cut.prefix(move_data_to_device(batch, self.trainer.strategy.root_device))
        layout = Layout.of(values, self.backbone.variable_length)
        return sum(map(len, self.digests.values())) * layout.row_bytes(values)

    def _computed(self, cut: Cut, filler: Filler, source: Rows | None) -> dict[str, StoredRows]:
        """The rows of a prefix, computed from the rows of a shorter prefix, or from inputs if `source` is None."""
        if source:
            groups, rows = source
            try:
                _, between, _ = in_parts(self.backbone, [groups, cut.groups])
                return filler.filled_rows(between, partial(_batches, rows, self.data.batch_size), must_pay=False)
            except NoCleanCutError as reason:
                log.debug("activations behind %d groups are computed from the inputs: %s", cut.groups, reason)
        try:
            return filler.filled_rows(cut.prefix, self.inputs, self.must_pay)
        finally:
            self.passes += filler.passes

    def _filler(self, cut: Cut) -> Filler:
        device = self.trainer.strategy.root_device
        name = fingerprint.of_prefix(cut.prefix, self.data.eval_transform, self.data.samples, device)
        return Filler(self.trainer, self.digests, self.root / name, self.limit, self.sort)

    def _log_counts(self, cut: Cut, filler: Filler, rows: dict[str, StoredRows], purpose: str) -> None:
        size = sum(stored.bytes for stored in rows.values())
        log.debug(
            "frozen prefix of %d groups, %s: %d samples computed%s, %d found (%s, %.1f MB)",
            *(cut.groups, " and ".join(rows), filler.lacking, purpose, filler.found, filler.folder, size / 10**6),
        )


def _batches(rows: dict[str, StoredRows], size: int, split: str, positions: Sequence[int]) -> Iterator[Tensor]:
    for start in range(0, len(positions), size):
        yield rows[split](positions[start : start + size])


def _cut(backbone: Backbone, groups: int) -> Cut:
    """Cuts the backbone behind its first `groups` layer groups, or behind fewer if it cannot be cut there.

    Raises:
        NoCleanCutError: it cannot be cut behind any of them.
    """
    for count in range(groups, 0, -1):
        try:
            return Cut(count, *in_two_parts(backbone, count))
        except NoCleanCutError as error:
            reason = error
    raise reason
