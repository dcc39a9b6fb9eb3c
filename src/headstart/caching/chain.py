"""The rows of several frozen prefixes in one go: each layer group sees a picture once, whichever stages need it."""

import logging
from collections.abc import Iterator, Sequence
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
from headstart.caching.activation_store import RECORD, Layout, StoredRows
from headstart.caching.filling import Filler, Inputs, NotCachedError
from headstart.files import GB

log = logging.getLogger(__name__)
NOT_KEPT = "the activations behind %d groups are not kept for a later stage: %s"
Rows = tuple[int, dict[str, StoredRows]]


@dataclass(frozen=True)
class Cut:
    """A place behind so many layer groups: what leads there, and what follows."""

    groups: int
    prefix: nn.Module
    rest: nn.Module


class Chain:
    """Finds or computes the rows of a stage and, where it computes, on the way there those of later stages.

    From pictures to the shortest prefix, from its rows to the next one, and so on to the stage's own. What does not
    work on the way is told and left out, for the later stage to try by itself. The store of a prefix is the same
    however its rows were computed. All processes of a run must call everything here alike.

    Args:
        trainer: whose module has the backbone, and whose data module the pictures.
        inputs: split and positions -> batches of pictures there, in this order.
        digests: of each split's samples, in their order.
        root: the folder of all stores.
        limit: bytes that all of them together may take.

    Attributes:
        passes: samples of which this process sent the picture through a prefix.
    """

    def __init__(self, trainer: pl.Trainer, inputs: Inputs, digests: dict[str, list[str]], root: Path, limit: float):
        self.trainer, self.inputs, self.digests, self.root, self.limit = trainer, inputs, digests, root, limit
        self.backbone, self.data = trainer.lightning_module.backbone, trainer.datamodule
        self.passes = 0

    def rows(self, groups: int, shorter: Sequence[int]) -> tuple[nn.Module, dict[str, StoredRows]]:
        """What follows the prefix of so many layer groups (or of fewer, where it cannot be cut there), and its rows.

        Args:
            groups: those frozen in this stage.
            shorter: numbers of those frozen in later ones.

        Raises:
            NotCachedError: the rows cannot be kept.
            NoCleanCutError: the backbone cannot be cut anywhere.
            NoFingerprintError: what the rows depend on cannot be told.
        """
        cut = _cut(self.backbone, groups)
        filler = self._filler(cut)
        rows = filler.found_rows()
        if rows is None:
            rows = self._computed(cut, filler, self._on_the_way(cut, shorter))
        self._tell(cut, filler, rows, "")
        return cut.rest, rows

    def _on_the_way(self, last: Cut, shorter: Sequence[int]) -> Rows | None:
        """Keeps the rows of shorter prefixes, as far as that works; how many groups the longest has, and its rows."""
        source = None
        for cut in self._that_fit(last, shorter):
            try:
                filler = self._filler(cut)
                rows = filler.found_rows() or self._computed(cut, filler, source)
            except (NotCachedError, fingerprint.NoFingerprintError) as reason:
                log.info(NOT_KEPT, cut.groups, reason)
                continue
            self._tell(cut, filler, rows, " for a later stage")
            source = cut.groups, rows
        return source

    def _that_fit(self, last: Cut, shorter: Sequence[int]) -> list[Cut]:
        """The shorter prefixes, ascending; without those whose rows would drive out the ones needed before them."""
        cuts = {}
        for groups in shorter:
            with suppress(NoCleanCutError):  # which the later stage will tell
                cut = _cut(self.backbone, groups)
                cuts[cut.groups] = cut
        if not cuts:
            return []
        room, fitting = self.limit - self._bytes(last), []
        for cut in (cuts[groups] for groups in sorted(cuts, reverse=True) if groups < last.groups):
            room -= self._bytes(cut)
            if room < 0:
                log.info(NOT_KEPT, cut.groups, f"cache.max_gb={self.limit / GB:g} has no room for them beside others")
                break
            fitting.insert(0, cut)
        return fitting

    @torch.no_grad()
    def _bytes(self, cut: Cut) -> int:
        """Bytes that the rows of a prefix take, as the row of one sample tells."""
        index = self.data.splits[next(iter(self.digests))][0]
        deterministic, random = self.data.in_two_parts(self.data.eval_transform)
        sample = random(self.data.load_with(self.data.samples, deterministic)(index))  # from the cache, if it is there
        batch = move_data_to_device(self.data.collate([sample]), self.trainer.strategy.root_device)
        layout = Layout.of(cut.prefix(batch))
        return sum(map(len, self.digests.values())) * (layout.row_bytes + RECORD.size)

    def _computed(self, cut: Cut, filler: Filler, source: Rows | None) -> dict[str, StoredRows]:
        """The rows of a prefix, computed from those of a shorter one or, if there are none, from pictures."""
        if source:
            groups, rows = source
            try:
                _, between, _ = in_parts(self.backbone, [groups, cut.groups])
                return filler.filled_rows(between, partial(_batches, rows, self.data.batch_size), must_pay=False)
            except NoCleanCutError as reason:
                log.info("activations behind %d groups are computed from pictures: %s", cut.groups, reason)
        try:
            return filler.filled_rows(cut.prefix, self.inputs, must_pay=True)
        finally:
            self.passes += filler.passes

    def _filler(self, cut: Cut) -> Filler:
        device = self.trainer.strategy.root_device
        name = fingerprint.of_prefix(cut.prefix, self.data.eval_transform, self.data.samples, device)
        return Filler(self.trainer, self.digests, self.root / name, self.limit)

    def _tell(self, cut: Cut, filler: Filler, rows: dict[str, StoredRows], purpose: str) -> None:
        size = (filler.lacking + filler.found) * next(iter(rows.values())).layout.row_bytes
        log.info(
            "frozen prefix of %d groups, %s: %d samples computed%s, %d found (%s, %.1f MB)",
            *(cut.groups, " and ".join(rows), filler.lacking, purpose, filler.found, filler.folder, size / 10**6),
        )


def _batches(rows: dict[str, StoredRows], size: int, split: str, positions: Sequence[int]) -> Iterator[Tensor]:
    for start in range(0, len(positions), size):
        yield rows[split](positions[start : start + size])


def _cut(backbone: Backbone, groups: int) -> Cut:
    """Cuts behind the last of so many groups, or behind an earlier one where the code cannot be cut there.

    Raises:
        NoCleanCutError: there is no such place.
    """
    for count in range(groups, 0, -1):
        try:
            return Cut(count, *in_two_parts(backbone, count))
        except NoCleanCutError as error:
            reason = error
    raise reason
