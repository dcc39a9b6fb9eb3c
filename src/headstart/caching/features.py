"""The features of a whole split, read from the activation cache or computed and added to it."""

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from headstart.backbones.base import Backbone
from headstart.backbones.parts import InferenceCopy
from headstart.caching import fingerprint
from headstart.caching.activation_cache import ActivationCache
from headstart.caching.filling import Filler, NotCachedError
from headstart.data.module import DataModule

log = logging.getLogger(__name__)


def features_of(
    backbone: Backbone, data: DataModule, split: str, trainer: pl.Trainer, cache: ActivationCache | None
) -> Tensor:
    """The features of the plain samples of a split, `(samples, num_features)` in fp32 on the CPU.

    They are read from the cache if a run or an earlier evaluation added them; otherwise they are computed and added.
    Without a cache, or if it cannot be used (the log says why), they are only computed.
    """
    positions = range(data.num_samples[split])
    backbone.to(trainer.strategy.root_device)
    if cache is not None:
        try:
            return _cached_rows(backbone, data, split, trainer, cache)(positions).float()
        except (NotCachedError, fingerprint.NoFingerprintError) as reason:
            log.info("the features of %s are not cached: %s", split, reason)
    copy = InferenceCopy(backbone)
    order = data.longest_first(split, list(positions))
    rows = torch.cat([copy(_moved(inputs, trainer)).float().cpu() for inputs in data.inputs(split, order)])
    return rows[torch.tensor(order).argsort()]


def _cached_rows(backbone: Backbone, data: DataModule, split: str, trainer: pl.Trainer, cache: ActivationCache) -> Any:
    device = trainer.strategy.root_device
    folder = cache.root / fingerprint.of_prefix(backbone, data.eval_transform, data.samples, device)
    digests = {split: fingerprint.of_samples(data.samples, data.splits[split])}
    filler = Filler(trainer, digests, folder, cache.limit, data.order_to_compute)
    rows = filler.found_rows() or filler.filled_rows(backbone, data.inputs, must_pay=False)
    log.debug("features of %s: %d samples computed, %d found (%s)", split, filler.lacking, filler.found, folder)
    return rows[split]


def _moved(inputs: Any, trainer: pl.Trainer) -> Any:
    return trainer.strategy.batch_to_device(inputs)
