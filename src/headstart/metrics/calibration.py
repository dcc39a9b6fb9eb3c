"""One number that makes a trained model's probabilities honest: the temperature of its logits."""

import torch
from torch import Tensor
from torch.nn import functional

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
