"""Whether probabilities are honest, and one number that makes them so: the temperature of the logits."""

import torch
from torch import Tensor
from torch.nn import functional

from headstart.metrics.intervals import calibration_errors
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


def calibration_error(predictions: Predictions, bins: int) -> float:
    """The expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3)."""
    probability, right = judged(predictions)
    return calibration_errors(probability, right, torch.ones(len(right), 1), bins).item()


def reliability_bins(predictions: Predictions, bins: int) -> Bins:
    """Mean probability, share that was right and number of samples of each bin that has any."""
    probability, right = judged(predictions)
    place = (probability * bins).long().clamp_max(bins - 1)
    found = []
    for number in range(bins):
        here = place == number
        if here.any():
            found.append((probability[here].mean().item(), right[here].mean().item(), int(here.sum())))
    return found
