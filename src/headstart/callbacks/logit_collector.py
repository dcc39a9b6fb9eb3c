"""What a network gave for each sample of a split, kept while it is tested."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn


class LogitCollector(Callback):
    """Keeps the logits of a test, and where wanted the features, in the order of the samples, on the CPU in fp32.

    For one process: of several each would have its share alone.

    Args:
        features: whether what the head is given is kept, too; of a picture that is seen twice, the first time's.
    """

    def __init__(self, features: bool = False):
        self.wants_features = features
        self._clear()

    def _clear(self) -> None:
        self._logits: list[Tensor] = []
        self._features: list[Tensor] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listens to the head, so that nothing is computed twice."""
        self._clear()
        self._handle = pl_module.head.register_forward_pre_hook(self._keep)

    def _keep(self, head: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.wants_features and len(self._features) == len(self._logits):
            self._features.append(inputs[0].detach().float().cpu())

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Any, index: int, *_: int
    ) -> None:
        """Takes what the step returns."""
        self._logits.append(outputs.detach().float().cpu())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the head as it was."""
        self._handle.remove()

    @property
    def has_logits(self) -> bool:
        """Whether anything was tested."""
        return bool(self._logits)

    @property
    def logits(self) -> Tensor:
        """`(samples, num_outputs)`."""
        return torch.cat(self._logits)

    @property
    def features(self) -> Tensor:
        """`(samples, num_features)`."""
        assert self.wants_features, "nobody asked for the features"
        return torch.cat(self._features)
