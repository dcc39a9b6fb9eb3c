"""The mean loss of an epoch."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """Weighted mean of the losses of batches, over all processes.

    Made by hand, because torchmetrics' `MeanMetric` makes the CPU wait for the GPU in every step: it asks whether a
    loss is NaN, and then leaves it out. Here one NaN makes the mean NaN.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        # `mean_value` is the weighted sum; it keeps the name that it has in earlier checkpoints
        self.add_state("mean_value", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, weight: Tensor | int = 1) -> None:
        """Adds a batch: its mean loss, a scalar, and its weight, such as the number of its samples."""
        self.mean_value += loss.to(self.dtype) * weight
        self.weight += weight

    def compute(self) -> Tensor:
        """The weighted mean, a scalar; NaN if nothing was added."""
        return self.mean_value / self.weight
