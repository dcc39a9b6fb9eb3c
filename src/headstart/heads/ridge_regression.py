"""The optimal linear layer for given features and numbers: ridge regression (Hoerl and Kennard 1970)."""

import torch
from torch import Tensor

from headstart.heads.logistic_regression import DEFAULT_PENALTY, Solution, centred_and_scaled, in_their_span

PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(2, -17, -1))
"""L2 penalties from 10 down to 1e-8, for features with a mean squared norm of 1."""
FEWEST_SAMPLES = 3
"""With fewer samples none is held out."""


def solve(features: Tensor, targets: Tensor) -> Solution:
    """Minimises the mean squared error of `features @ W.T + b` plus `penalty * |W|^2`; it is the same for all numbers.

    Features are first centred and divided by one number, so that the same penalties fit every backbone. The chosen
    penalty has the lowest mean squared error on samples that were held out one by one. This needs no further fit: the
    error of a sample without which the layer was fitted is its error divided by 1 minus its leverage (Allen 1974;
    `sklearn.linear_model.RidgeCV` does the same). All is computed in double precision.

    Args:
        features: `(samples, num_features)`.
        targets: `(samples, numbers)`, of similar size, such as standardised ones.
    """
    device = features.device
    exact = "cpu" if device.type == "mps" else device  # no double precision there
    centred, mean, scale = centred_and_scaled(features.to(exact, torch.float64))
    x, basis = in_their_span(centred)
    y = targets.to(exact, torch.float64)
    middle = y.mean(dim=0)
    squares, directions = torch.linalg.eigh(x.T @ x)
    squares = squares.clamp_min(0)
    rotated = x @ directions
    along = rotated.T @ (y - middle)
    held_out = {penalty: _held_out(rotated, squares, along, y, penalty) for penalty in _tried(len(x))}
    losses = {penalty: (found - y).square().mean().item() for penalty, found in held_out.items()}
    penalty = min(losses, key=losses.__getitem__, default=DEFAULT_PENALTY)
    weight = (directions @ (along / (squares + len(x) * penalty)[:, None])).T
    weight = (weight if basis is None else weight @ basis) / scale
    best = (held_out[penalty].to(targets), targets) if held_out else None
    bias = middle - weight @ mean
    return Solution(weight.to(features), bias.to(features), penalty, losses, best, "ridge regression")


def _tried(samples: int) -> tuple[float, ...]:
    return PENALTIES if samples >= FEWEST_SAMPLES else ()


def _held_out(rotated: Tensor, squares: Tensor, along: Tensor, y: Tensor, penalty: float) -> Tensor:
    """The prediction for each sample `(samples, numbers)` of a layer that was fitted to all others.

    Args:
        rotated: centred features `(samples, size)`, so rotated that their columns are orthogonal.
        squares: squared norm of each of these columns.
        along: product of these columns and the centred targets, `(size, numbers)`.
        y: targets `(samples, numbers)`.
        penalty: of the squared weights.
    """
    shrunk = 1 / (squares + len(y) * penalty)
    fitted = y.mean(dim=0) + rotated @ (along * shrunk[:, None])
    leverage = 1 / len(y) + rotated.square() @ shrunk
    return y - (y - fitted) / (1 - leverage).clamp_min(1e-9)[:, None]
