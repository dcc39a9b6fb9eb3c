"""Counts samples that go through the network: the cost of a training, independent of the machine."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from headstart.data.activations import Activations


class ForwardPassCounter(Callback):
    """Counts samples that are used for training, for validation, or to fill the cache; not tested samples.

    Batches of cached activations are not counted. Each process counts its share; the shares are assumed to be equal.
    """

    def __init__(self):
        self.counted = 0
        self.caches: list[Any] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finds the other callbacks that send samples through the network."""
        self.caches = [callback for callback in trainer.callbacks if hasattr(callback, "passes")]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Counts a training batch."""
        self._count(batch)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        """Counts a validation batch."""
        if not trainer.sanity_checking:
            self._count(batch)

    def _count(self, batch: Any) -> None:
        inputs, targets = batch
        if not isinstance(inputs, Activations):
            self.counted += len(targets)

    @property
    def share(self) -> int:
        """The count of this process, with the part before the run was resumed."""
        return self.counted + sum(cache.passes for cache in self.caches)

    def state_dict(self) -> dict[str, Any]:
        """The count up to now."""
        return {"passes": self.share}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the count."""
        self.counted = state_dict["passes"]


def passes_of(trainer: pl.Trainer) -> int:
    """Samples that all processes of a run have sent through the network."""
    (counter,) = (callback for callback in trainer.callbacks if isinstance(callback, ForwardPassCounter))
    return counter.share * trainer.world_size
