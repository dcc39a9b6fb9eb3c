"""Whether probabilities are honest: of what is said with a probability of 0.8, four in five should be right."""

import torch
from torch import Tensor

from headstart.metrics.intervals import calibration_errors
from headstart.metrics.predictions import Predictions

Bins = list[tuple[float, float, int]]


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
