"""Collects the logits, and if wanted the features, of each sample while a split is tested."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader


class LogitCollector(Callback):
    """Keeps the logits of a test, and if wanted the features, in the order of the samples, on the CPU in fp32.

    With several processes, each has only its share.

    Args:
        features: whether to keep the inputs of the head, too; of a batch that passes twice (mirrored), the first ones.

    Attributes:
        positions: of the samples in the split, known after the test.
    """

    def __init__(self, features: bool = False):
        self.wants_features = features
        self._clear()

    def _clear(self) -> None:
        self._logits: list[Tensor] = []
        self._features: list[Tensor] = []
        self.positions: list[int] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds a hook to the head, which gives the features without computing them again."""
        self._clear()
        self._loader = trainer.test_dataloaders
        self._handle = pl_module.head.register_forward_pre_hook(self._keep)

    def _keep(self, head: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.wants_features and len(self._features) == len(self._logits):
            self._features.append(inputs[0].detach().float().cpu())

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Any, index: int, *_: int
    ) -> None:
        """Keeps the logits that the step returns."""
        self._logits.append(outputs.detach().float().cpu())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Removes the hook, and puts the rows in the order of the samples."""
        self._handle.remove()
        if self._logits:
            logits, self.positions = in_order(self._logits, self._loader)
            self._logits = [logits]
        if self._features:
            self._features = [in_order(self._features, self._loader)[0]]

    @property
    def has_logits(self) -> bool:
        """Whether anything was tested."""
        return bool(self._logits)

    @property
    def logits(self) -> Tensor:
        """`(samples, num_outputs)`."""
        return self._logits[0]

    @property
    def features(self) -> Tensor:
        """`(samples, num_features)`."""
        assert self.wants_features, "give features=True to keep the features"
        return self._features[0]


def in_order(batches: list[Tensor], loader: DataLoader) -> tuple[Tensor, list[int]]:
    """The rows of all batches, sorted by the position of their samples in the split, and these positions.

    Args:
        batches: rows in the order in which the loader gave the samples; some of the last batches may be missing.
        loader: of plain samples of a split (`DataModule.loader`).
    """
    rows = torch.cat(batches)
    positions = torch.tensor(list(loader.batch_sampler.sampler)[: len(rows)])
    order = positions.argsort()
    return rows[order], positions[order].tolist()
