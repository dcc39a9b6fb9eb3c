"""Metrics of predicted numbers, in their units."""

import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric


class R2(Metric):
    """Coefficient of determination: 1 minus the squared error divided by that of the mean; the mean over the numbers.

    Made by hand, because torchmetrics' `R2Score` counts squared errors below 1e-4 as none, whatever the unit, and loses
    its digits if the mean is large, as of years.

    Args:
        numbers: numbers per sample.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    def __init__(self, numbers: int):
        super().__init__()
        self.add_state("samples", torch.tensor(0.0), dist_reduce_fx="sum")
        for name in ("total", "squares", "squared_error"):
            self.add_state(name, torch.zeros(numbers), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Adds a batch: predicted and true numbers `(batch, numbers)`."""
        predicted, true = _precise(predicted), _precise(true)
        self.samples = self.samples + len(true)
        self.total = self.total + true.sum(dim=0)
        self.squares = self.squares + true.square().sum(dim=0)
        self.squared_error = self.squared_error + (predicted - true).square().sum(dim=0)

    def compute(self) -> Tensor:
        """The mean over the numbers that differ between the samples; NaN if none does."""
        spread = self.squares - self.total.square() / self.samples
        spread = torch.where(spread > 1e-12 * self.squares, spread, torch.nan)
        return (1 - self.squared_error / spread).nanmean().float()


class RMSE(MeanSquaredError):  # noqa: N818 - no exception
    """Root of the mean squared error of each number; the mean over the numbers."""

    def __init__(self, numbers: int):
        super().__init__(squared=False, num_outputs=numbers)

    def compute(self) -> Tensor:
        """The mean."""
        return super().compute().mean()


def _precise(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "mps" else values.double()
