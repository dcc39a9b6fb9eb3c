"""The probability above which a label counts as present, chosen for each label on held-out samples."""

from collections.abc import Sequence

import torch
from torch import Tensor

USUAL = 0.5
FEWEST = 10
"""Samples with a label, and samples without it, that a choice needs: with fewer, it would fit their chance."""


def best_thresholds(probabilities: Tensor, truth: Tensor) -> list[float]:
    """The threshold of each label with the highest F1.

    It lies in the middle between two neighbouring probabilities. Of equally good thresholds, the one nearest to 0.5
    counts. Labels with fewer than `FEWEST` samples with or without them keep 0.5. For the choice by F1 see Lipton,
    Elkan and Naryanaswamy 2014 (https://arxiv.org/abs/1402.1892).

    Args:
        probabilities: `(samples, labels)`.
        truth: zeros and ones, `(samples, labels)`.
    """
    return [_best(p.double(), t.bool()) for p, t in zip(probabilities.T.cpu(), truth.T.cpu(), strict=True)]


def _best(probabilities: Tensor, truth: Tensor) -> float:
    positives = int(truth.sum())
    if min(positives, len(truth) - positives) < FEWEST:
        return USUAL
    values, order = probabilities.sort(descending=True)
    hits = truth[order].cumsum(dim=0)
    f1 = 2 * hits / (torch.arange(1, len(truth) + 1) + positives)
    below = torch.cat([values[1:], values.new_zeros(1)])
    middles = ((values + below) / 2).float().double()  # as the probabilities that are compared with it
    middles = torch.where(middles < values, middles, below)
    is_edge = torch.cat([values[:-1] > values[1:], torch.tensor([True])])  # equal probabilities stay together
    best = f1[is_edge].max()
    candidates = middles[is_edge & (f1 >= best - 1e-12)]
    return candidates[(candidates - USUAL).abs().argmin()].item()


def present(probabilities: Tensor, thresholds: Sequence[float] | None) -> Tensor:
    """Booleans `(samples, labels)`: whether each label counts as present.

    Args:
        probabilities: `(samples, labels)`, on the CPU.
        thresholds: of the labels; None: `USUAL` for all.
    """
    return probabilities > torch.tensor(thresholds or [USUAL])


def moved(probabilities: Tensor, thresholds: Tensor) -> Tensor:
    """Probabilities `(samples, labels)`, moved so that the threshold of each label is at 0.5; their order stays."""
    above, below = probabilities * (1 - thresholds), (1 - probabilities) * thresholds
    return (above / (above + below)).nan_to_num(0)  # 0 / 0: a probability of 0 or 1 that equals the threshold


def rescaled(thresholds: Sequence[float], factor: float) -> list[float]:
    """The thresholds that decide in the same way if all logits are multiplied by `factor`."""
    return (torch.tensor(thresholds, dtype=torch.float64).logit() * factor).sigmoid().tolist()
