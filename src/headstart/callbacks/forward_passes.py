"""How often a picture went through the network: what a training costs, whatever the machine."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from headstart.data.activations import Activations


class ForwardPassCounter(Callback):
    """Counts pictures that are learned from, validated or sent through frozen layers for the cache, not those tested.

    What is trained from stored activations is not counted again. Of several processes each counts its share, which is
    taken for that of all.
    """

    def __init__(self):
        self.counted = 0
        self.caches: list[Any] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finds who else sends pictures through the network."""
        self.caches = [callback for callback in trainer.callbacks if hasattr(callback, "passes")]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Counts a batch that was learned from."""
        self._count(batch)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        """Counts a batch that was validated."""
        if not trainer.sanity_checking:
            self._count(batch)

    def _count(self, batch: Any) -> None:
        inputs, targets = batch
        if not isinstance(inputs, Activations):
            self.counted += len(targets)

    @property
    def share(self) -> int:
        """Of this process, those before a resumption counted too."""
        return self.counted + sum(cache.passes for cache in self.caches)

    def state_dict(self) -> dict[str, Any]:
        """So far."""
        return {"passes": self.share}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.counted = state_dict["passes"]


def passes_of(trainer: pl.Trainer) -> int:
    """Pictures through the network in a run, of all its processes."""
    (counter,) = (callback for callback in trainer.callbacks if isinstance(callback, ForwardPassCounter))
    return counter.share * trainer.world_size
