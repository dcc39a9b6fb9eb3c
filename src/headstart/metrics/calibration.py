"""Whether probabilities are honest, and one number that makes them so: the temperature of the logits."""

import torch
from torch import Tensor
from torch.nn import functional

from headstart.metrics.predictions import Predictions

Bins = list[tuple[float, float, int]]
"""Mean probability, share that was right, and samples, a bin each."""
BOUNDS = 0.05, 20.0
"""Temperatures outside say that the samples cannot tell one: they are no better than chance, or nearly all right."""


def fit_temperature(logits: Tensor, targets: Tensor) -> float | None:
    """The temperature with the lowest cross-entropy (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2).

    It divides all logits alike, so the order of a sample's classes, and with it the accuracy, stays what it is.

    Args:
        logits: `(samples, classes)`; with one column a sigmoid unit for the second of two classes.
        targets: class indices `(samples,)`, or zeros and ones `(samples, classes)` with a sigmoid a label.

    Returns:
        the temperature, 1 where the probabilities are right as they are; None where the samples cannot tell.
    """
    if _all_right(logits, targets):
        return None  # the lower, the better
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
    return found if BOUNDS[0] < found < BOUNDS[1] else None


def _all_right(logits: Tensor, targets: Tensor) -> bool:
    if targets.ndim == 1 and logits.shape[1] > 1:
        return bool((logits.argmax(dim=1) == targets).all())
    return bool(((logits > 0) == targets.view_as(logits).bool()).all())


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Their mean, without class weights, which would shift the probabilities on purpose."""
    if targets.ndim == 1 and logits.shape[1] > 1:
        return functional.cross_entropy(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets.view_as(logits).to(logits))


def judged(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """What is said with which probability, and whether it is so: the answer of each sample, or each of its labels."""
    if predictions.multi_label:
        return predictions.probabilities.flatten(), predictions.truth.flatten().float()
    return predictions.probabilities.amax(dim=1), predictions.is_right.float()


def bin_of(probability: Tensor, bins: int) -> Tensor:
    """The bin `(samples,)` of each probability, from 0 to `bins`: the only place that decides it.

    The bins are those of torchmetrics, whose calibration error is printed: of equal width, an edge belongs to the bin
    above it, and 1 has a bin of its own. (`sklearn.calibration.calibration_curve` puts an edge into the bin below it and
    returns no counts.)
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=probability.dtype)
    return torch.bucketize(probability, edges, right=True) - 1


def calibration_errors(probability: Tensor, right: Tensor, counts: Tensor, bins: int) -> Tensor:
    """The expected calibration error of each draw `(draws,)`.

    Args:
        probability: `(samples,)`, of what was predicted.
        right: `(samples,)`, zeros and ones.
        counts: `(samples, draws)`, how often each draw has each sample.
        bins: as for `bin_of`.
    """
    gaps = counts.new_zeros(bins + 1, counts.shape[1])
    gaps.index_add_(0, bin_of(probability, bins), counts * (right - probability)[:, None])
    return gaps.abs().sum(dim=0) / counts.sum(dim=0)


def calibration_error(predictions: Predictions, bins: int) -> float:
    """The expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3)."""
    probability, right = judged(predictions)
    return calibration_errors(probability, right, torch.ones(len(right), 1), bins).item()


def reliability_bins(predictions: Predictions, bins: int) -> Bins:
    """Mean probability, share that was right and number of samples of each bin that has any."""
    probability, right = judged(predictions)
    bin_number = bin_of(probability, bins)
    found = []
    for number in bin_number.unique().tolist():  # in ascending order
        inside = bin_number == number
        found.append((probability[inside].mean().item(), right[inside].mean().item(), int(inside.sum())))
    return found
