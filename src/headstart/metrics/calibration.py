"""Calibration: whether a probability is the share of correct predictions, and the temperature that makes it so."""

import torch
from torch import Tensor
from torch.nn import functional

from headstart.metrics.predictions import Predictions

ReliabilityBins = list[tuple[float, float, int]]
"""Mean probability, share of correct predictions and number of samples of each bin."""
TEMPERATURE_RANGE = 0.05, 20.0
"""Outside of it a temperature cannot be estimated: the predictions are as good as chance, or nearly all correct."""


def fit_temperature(logits: Tensor, targets: Tensor) -> float | None:
    """The temperature with the lowest cross-entropy (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2).

    All logits are divided by it, so the order of the classes, and with it the accuracy, does not change.

    Args:
        logits: `(samples, classes)`; one column is a sigmoid unit for the second of two classes.
        targets: class indices `(samples,)`; with a sigmoid unit per label zeros and ones `(samples, classes)`.

    Returns:
        the temperature, 1 if the probabilities are calibrated already; None if it cannot be estimated.
    """
    if _is_all_correct(logits, targets):
        return None  # each lower temperature has a lower loss
    logits = logits.double()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(logits / log_temperature.exp(), targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = log_temperature.exp().item()
    return found if TEMPERATURE_RANGE[0] < found < TEMPERATURE_RANGE[1] else None


def _is_all_correct(logits: Tensor, targets: Tensor) -> bool:
    if targets.ndim == 1 and logits.shape[1] > 1:
        return bool((logits.argmax(dim=1) == targets).all())
    return bool(((logits > 0) == targets.view_as(logits).bool()).all())


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy, without class weights: they would shift the probabilities."""
    if targets.ndim == 1 and logits.shape[1] > 1:
        return functional.cross_entropy(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets.view_as(logits).to(logits))


def confidence_and_correctness(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """Probability of each prediction and whether it is correct (0 or 1): `(samples,)`, or `(samples x labels,)`."""
    if predictions.multi_label:
        return predictions.probabilities.flatten(), predictions.truth.flatten().float()
    return predictions.probabilities.amax(dim=1), predictions.is_right.float()


def bin_of(probability: Tensor, bins: int) -> Tensor:
    """The bin of each probability, from 0 to `bins`, as torchmetrics defines it for the calibration error of training.

    All bins have the same width. A probability on an edge belongs to the bin above it; 1 has a bin of its own.
    `sklearn.calibration.calibration_curve` would put an edge into the bin below it, and returns no counts.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=probability.dtype)
    return torch.bucketize(probability, edges, right=True) - 1


def calibration_errors(probability: Tensor, right: Tensor, counts: Tensor, bins: int) -> Tensor:
    """The expected calibration error of each draw `(draws,)`.

    Args:
        probability: of the predictions, `(samples,)`.
        right: 1 for a correct prediction, else 0, `(samples,)`.
        counts: how often each sample is in each draw, `(samples, draws)`.
        bins: their number, as for `bin_of`.
    """
    gaps = counts.new_zeros(bins + 1, counts.shape[1])
    gaps.index_add_(0, bin_of(probability, bins), counts * (right - probability)[:, None])
    return gaps.abs().sum(dim=0) / counts.sum(dim=0)


def calibration_error(predictions: Predictions, bins: int) -> float:
    """The expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3)."""
    probability, right = confidence_and_correctness(predictions)
    return calibration_errors(probability, right, torch.ones(len(right), 1), bins).item()


def reliability_bins(predictions: Predictions, bins: int) -> ReliabilityBins:
    """Mean probability, share of correct predictions and number of samples of each bin that is not empty."""
    probability, right = confidence_and_correctness(predictions)
    bin_number = bin_of(probability, bins)
    found = []
    for number in bin_number.unique().tolist():  # in ascending order
        inside = bin_number == number
        found.append((probability[inside].mean().item(), right[inside].mean().item(), int(inside.sum())))
    return found
