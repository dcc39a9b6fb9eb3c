"""Tests a model whose first layers are frozen from their cached outputs, as it was trained and validated."""

import logging
from pathlib import Path

import pytorch_lightning as pl
from torch import nn

from headstart.backbones.parts import NoCleanCutError, in_two_parts
from headstart.caching import fingerprint
from headstart.caching.activation_store import StoredRows
from headstart.caching.filling import Filler, NotCachedError
from headstart.data.module import DataModule
from headstart.finetuning.base import strategy_of

log = logging.getLogger(__name__)


def rows_to_test(
    trainer: pl.Trainer, data: DataModule, split: str, root: Path, limit: float
) -> tuple[nn.Module, StoredRows] | None:
    """The rest of the backbone behind its frozen layers, and their outputs for the samples of a split.

    Layers count as frozen if a stage of the strategy freezes them and the cache knows these weights: then a training
    was served from it, this one or another one. Rows that it lacks are computed and added, so the next test finds them.

    Args:
        trainer: about to test; its module has the weights, on its device.
        data: the samples come from.
        split: tested.
        root: the folder of all stores.
        limit: bytes that all stores together may take.

    Returns:
        None if there is no such cache, or if it cannot be used; then the inputs go through the whole network.
    """
    backbone, device = trainer.lightning_module.backbone, trainer.strategy.root_device
    for groups in _frozen_in_a_stage(trainer):
        try:
            prefix, rest = in_two_parts(backbone, groups)
            folder = root / fingerprint.of_prefix(prefix, data.eval_transform, data.samples, device)
            if not trainer.strategy.broadcast(folder.is_dir()):
                continue
            digests = {split: fingerprint.of_samples(data.samples, data.splits[split])}
            filler = Filler(trainer, digests, folder, limit, data.order_to_compute)
            rows = filler.found_rows() or filler.filled_rows(prefix, data.inputs, must_pay=False)
        except (NotCachedError, NoCleanCutError, fingerprint.NoFingerprintError) as reason:
            log.info("the frozen layers of %s are not cached: %s", split, reason)
            return None
        log.debug("%s: %d rows computed, %d found (%s)", split, filler.lacking, filler.found, folder)
        return rest, rows[split]
    return None


def _frozen_in_a_stage(trainer: pl.Trainer) -> list[int]:
    """The numbers of leading layer groups that the stages of the run freeze, the longest prefix first."""
    names = [group.name for group in trainer.lightning_module.backbone.layer_groups()]
    lengths = {stage.frozen_prefix(names) for stage in strategy_of(trainer).stages(names)}
    return sorted(lengths - {0}, reverse=True)
