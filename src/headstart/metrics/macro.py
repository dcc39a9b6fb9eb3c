"""Means over classes, from three counts per class.

By hand, because torchmetrics counts every pair of classes in each batch: with 10,000 classes that is a gigabyte, and
on a GPU it waits for the result.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class _ClassCounts(Metric):
    """Counts, for each class, its samples, its predictions and its correct predictions.

    Args:
        num_classes: their number.
    """

    full_state_update = False

    def __init__(self, num_classes: int, **options: Any):
        super().__init__(**options)
        for name in ("right", "actual", "predicted"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Adds a batch: probabilities `(batch, num_classes)` and class indices `(batch,)`."""
        predicted = probabilities.argmax(dim=1)
        ones = torch.ones_like(targets)
        self.right.index_add_(0, targets, (predicted == targets).to(ones))
        self.actual.index_add_(0, targets, ones)
        self.predicted.index_add_(0, predicted, ones)

    def _mean_over_classes(self, scores: Tensor) -> Tensor:
        """The mean over the classes that occur, as true or as predicted classes; as in torchmetrics."""
        seen = self.actual + self.predicted > 0
        return (scores * seen).sum() / seen.sum()


class MacroAccuracy(_ClassCounts):
    """The mean over classes of the share of their samples that are predicted correctly."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """The mean; NaN before the first sample."""
        return self._mean_over_classes(self.right / self.actual.clamp_min(1))


class MacroF1(_ClassCounts):
    """The mean over classes of the F1 score."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """The mean; NaN before the first sample."""
        return self._mean_over_classes(2 * self.right / (self.actual + self.predicted).clamp_min(1))
