"""The objective for numbers: one or several per sample, standardised inside and given back in their units."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanAbsoluteError, MetricCollection

from headstart.errors import UsageError
from headstart.heads import ridge_regression
from headstart.heads.logistic_regression import Solution
from headstart.metrics.intervals import Statistic
from headstart.metrics.number_predictions import NumberError, NumberPredictions, number_statistics, worst_errors
from headstart.metrics.numbers import R2, RMSE
from headstart.tasks.objective import AnyPredictions, Objective

LOSSES = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}


class Numbers(Objective):
    """Any number of N numbers per sample: N outputs, each a standardised number.

    The network learns the numbers minus their mean, divided by their standard deviation, both of the training samples
    (`fit_to`). So every number counts the same, and the same learning rates suit all units. Mean and standard deviation
    are saved with the weights.

    Args:
        num_classes: N.
        class_weights: None, because there are no classes.
        loss: `mse` (squared error), `mae` (absolute error) or `huber` (squared error up to one standard deviation,
            absolute error beyond it; Huber 1964). The last two follow outliers less.
    """

    numbers = True
    main_score = "r2", "R2"
    worst_name = "errors"
    answer_name = "numbers"

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None, loss: str = "mse"):
        super().__init__()
        if loss not in LOSSES:
            raise UsageError(f"task.objective.loss={loss}: choose one of {', '.join(LOSSES)}")
        if class_weights is not None:
            raise UsageError("data.class_weights is for classes, and task=regression has numbers: use none")
        self.num_outputs, self.kind = num_classes, loss
        self.register_buffer("mean", torch.zeros(num_classes))
        self.register_buffer("std", torch.ones(num_classes))

    def fit_to(self, targets: Tensor) -> None:
        """Sets the mean and the standard deviation, from the numbers `(samples, N)` of the training samples."""
        targets = targets.double()
        std = targets.std(dim=0, correction=0)
        self.mean.copy_(targets.mean(dim=0))
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits against numbers in their units, both `(batch, N)`; these are standardised first."""
        return LOSSES[self.kind](logits.float(), self._standardised(targets))

    def _standardised(self, targets: Tensor) -> Tensor:
        return (targets.float() - self.mean) / self.std

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(batch, N)` -> numbers in their units `(batch, N)`."""
        return logits.float() * self.std + self.mean

    def training_metrics(self) -> MetricCollection:
        """Metrics that are cheap enough for every training step."""
        return MetricCollection({"r2": R2(self.num_outputs)})

    def evaluation_metrics(self) -> MetricCollection:
        """Metrics over predicted and true numbers in their units, `(batch, N)`; means over the numbers."""
        return MetricCollection(
            {"r2": R2(self.num_outputs), "mae": MeanAbsoluteError(), "rmse": RMSE(self.num_outputs)},
            compute_groups=False,  # otherwise the first batch is computed to compare the metrics
        )

    def answer_sizes(self) -> Tensor:
        """The standard deviation of each number in training."""
        return self.std

    def closed_form_head(self, features: Tensor, targets: Tensor, num_outputs: int, seed: int) -> Solution:
        """Ridge regression of the standardised numbers, whatever the loss; its held-out targets are in units."""
        found = ridge_regression.solve(features, self._standardised(targets))
        return found.with_targets(targets)

    def predictions(
        self, paths: Sequence[str], classes: list[str], targets: Tensor, logits: Tensor
    ) -> NumberPredictions:
        """Predicted and true numbers."""
        return NumberPredictions(paths, classes, targets, self.probabilities(logits).cpu(), self.std.cpu())

    def worst(self, predictions: AnyPredictions) -> list[NumberError]:
        """The largest errors, the largest first."""
        return worst_errors(predictions)

    def statistics(self, predictions: AnyPredictions, losses: Tensor, weights: Tensor) -> dict[str, Statistic]:
        """R2, MAE and RMSE as functions of the counts of the samples."""
        return number_statistics(predictions, losses, weights)

    def steps_after(self) -> list[str]:
        """The steps from outputs to numbers in their units."""
        return [f"multiply the outputs by {self.std.tolist()}, and add {self.mean.tolist()}"]
