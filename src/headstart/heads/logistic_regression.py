"""The best linear layer on given features, computed and not crawled to."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from sklearn.model_selection import KFold, StratifiedKFold
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(0, -13, -1))
"""From 1 down to 1e-6, for features scaled to a mean squared norm of 1."""
DEFAULT_PENALTY = 1e-2
"""Where too many classes have a single sample, so that nothing can be held out."""
FOLDS = 5
# Of more samples a fifth, held out once, tells as much, and four fits are spared
MANY = 5_000


@dataclass(frozen=True)
class Solution:
    """A linear layer and how it was chosen.

    Attributes:
        weight: `(num_outputs, num_features)`.
        bias: `(num_outputs,)`.
        penalty: the chosen one.
        losses: penalty -> mean loss of the samples held out, at the best temperature, one of them doubted; empty when
            none could be.
        held_out: logits and targets of the samples held out under the chosen penalty; None when none could be.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    losses: dict[float, float]
    held_out: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class _Trial:
    """A penalty on samples held out: their loss at the best temperature, that factor, their logits and targets."""

    loss: float
    factor: float
    logits: Tensor
    targets: Tensor


def solve(features: Tensor, targets: Tensor, loss: Loss, num_outputs: int, seed: int = 0) -> Solution:
    """Minimises `loss(features @ W.T + b, targets) + penalty / 2 * |W|^2` over all samples by L-BFGS.

    Features are centred and scaled by one number first, so that one range of penalties fits every backbone. The penalty
    is the one of `PENALTIES` with the lowest loss on folds held out of these same samples, each measured at the
    temperature (one factor for all logits, Guo et al. 2017, https://arxiv.org/abs/1706.04599) that suits it best: plain
    loss would choose weak penalties for their confidence. The solution gets its temperature, too. That all of n samples
    held out are right says that of n + 2 more about one is wrong (Laplace's rule of succession; Platt 1999, section 2,
    softens the targets for the same purpose); without it, confidence would have no end. Where classes weigh more than
    others, n is the effective number of samples (Kish 1965, section 11.7), which is smaller.

    Args:
        features: `(samples, num_features)`.
        targets: class indices `(samples,)`, or zeros and ones `(samples, num_classes)`.
        loss: logits `(n, num_outputs)` and targets -> their mean loss, convex in the logits.
        num_outputs: columns of the logits.
        seed: of the folds.
    """
    centred, mean, scale = _scaled(features)
    reduced, basis = _reduced(centred)
    tried = _held_out(reduced, targets, loss, num_outputs, seed)
    penalty = min(tried, key=lambda p: tried[p].loss, default=DEFAULT_PENALTY)
    best = tried.get(penalty)
    factor = best.factor if best else 1.0
    *_, (_, weight, bias) = _path(reduced, targets, loss, num_outputs, last=penalty)
    weight = factor * (weight if basis is None else weight @ basis) / scale
    losses = {penalty: trial.loss for penalty, trial in tried.items()}
    held_out = (best.factor * best.logits, best.targets) if best else None
    return Solution(weight, factor * bias - weight @ mean, penalty, losses, held_out)


def out_of_fold(features: Tensor, targets: Tensor, loss: Loss, num_outputs: int, seed: int = 0) -> Tensor | None:
    """The logits `(samples, num_outputs)` of each sample by a solution that has not seen it, at the best temperature.

    Penalty and temperature are chosen as by `solve`, which these arguments are of.

    Returns:
        None where a class has a single sample, so that nothing can be held out.
    """
    if targets.ndim == 1 and 1 in targets.bincount():
        return None
    reduced, _ = _reduced(_scaled(features)[0])
    tried = _held_out(reduced, targets, loss, num_outputs, seed)
    if not tried:
        return None
    penalty = min(tried, key=lambda p: tried[p].loss)
    logits = features.new_zeros(len(features), num_outputs)
    for kept, held in _folds(targets, seed, many=len(targets)):
        *_, (_, weight, bias) = _path(reduced[kept], targets[kept], loss, num_outputs, last=penalty)
        logits[held] = tried[penalty].factor * (reduced[held] @ weight.T + bias)
    return logits


def _scaled(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centred and divided by one number to a mean squared norm of 1; the mean, and that number."""
    mean = features.mean(dim=0)
    centred = features - mean
    scale = centred.square().sum(dim=1).mean().sqrt().clamp_min(1e-12)
    return centred / scale, mean, scale


def _reduced(features: Tensor) -> tuple[Tensor, Tensor | None]:
    """The features in the space their rows span, if that is smaller, and its basis: the optimum lies in it."""
    samples, size = features.shape
    if samples >= size:
        return features, None
    basis = torch.linalg.svd(features, full_matrices=False).Vh
    return features @ basis.T, basis


def _held_out(features: Tensor, targets: Tensor, loss: Loss, num_outputs: int, seed: int) -> dict[float, _Trial]:
    """Each penalty on what was held out.

    Penalties weaker than two that were no improvement are left out: they are the slowest, and no better.
    """
    folds = _folds(targets, seed)
    paths = [_path(features[kept], targets[kept], loss, num_outputs) for kept, _ in folds]
    truth = torch.cat([targets[held] for _, held in folds]) if folds else targets
    tried: dict[float, _Trial] = {}
    for fits in zip(*paths, strict=True):
        logits = torch.cat([features[held] @ w.T + b for (_, held), (_, w, b) in zip(folds, fits, strict=True)])
        tried[fits[0][0]] = _Trial(*_at_best_temperature(logits, truth, loss), logits, truth)
        losses = [trial.loss for trial in tried.values()]
        if min(losses[:-2], default=float("inf")) < min(losses[-2:]):
            break
    return tried


def _at_best_temperature(logits: Tensor, targets: Tensor, loss: Loss) -> tuple[float, float]:
    """The lowest loss and its factor, where of `n + 2` samples one has another target than is told."""
    doubt, wrong = 1 / (_effective(logits, targets, loss) + 2), _wrong(targets, logits.shape[1])

    def doubted(exponent: float) -> float:
        scaled = 10**exponent * logits
        return torch.lerp(loss(scaled, targets), loss(scaled, wrong), doubt).item()

    found = minimize_scalar(doubted, bounds=(-2, 2), method="bounded", options={"xatol": 0.01})
    return found.fun, 10**found.x


def _effective(logits: Tensor, targets: Tensor, loss: Loss) -> float:
    """`(sum of w)^2 / sum of w^2` of the weights that a loss gives its samples, seen in its gradient at equal odds."""
    at = torch.zeros_like(logits, requires_grad=True)
    weights = torch.autograd.grad(loss(at, targets), at)[0].norm(dim=1)
    return (weights.sum().square() / weights.square().sum()).item()


def _wrong(targets: Tensor, num_outputs: int) -> Tensor:
    """Other targets: of classes any other one, of labels the opposite."""
    if targets.ndim == 2:
        return 1 - targets
    num_classes = max(num_outputs, 2)  # a single output tells two classes apart
    draws = torch.Generator().manual_seed(0)
    return (targets + torch.randint(1, num_classes, targets.shape, generator=draws).to(targets)) % num_classes


def _folds(targets: Tensor, seed: int, many: int = MANY) -> list[tuple[Tensor, Tensor]]:
    """Positions to learn from and positions held out; none where too many classes cannot be in both.

    The only sample of a class is learned from in all folds. Of more than `many` samples the first fold alone. Where
    more than a fifth of the classes have a single sample, what suits the others would neglect them.
    """
    targets = targets.cpu()
    if targets.ndim == 1:
        sizes = targets.bincount()
        single = sizes[targets] == 1
        number, kind = min(FOLDS, int(sizes.max())), StratifiedKFold
    else:
        single = torch.zeros(len(targets), dtype=torch.bool)
        number, kind = min(FOLDS, len(targets)), KFold
    if number < 2 or FOLDS * len(targets[single]) > len(targets.unique(dim=0)):
        return []
    alone, others = single.nonzero()[:, 0], (~single).nonzero()[:, 0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # it is not in every fold then
        cuts = list(kind(number, shuffle=True, random_state=seed).split(others, targets[others]))
    folds = [(torch.cat([others[kept], alone]), others[held]) for kept, held in cuts]
    return folds if len(targets) <= many else folds[:1]


def _path(
    features: Tensor, targets: Tensor, loss: Loss, num_outputs: int, last: float = 0.0
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Penalty, weight and bias from the strongest penalty down to `last`, each begun where the one before ended."""
    weight, bias = features.new_zeros(num_outputs, features.shape[1]), features.new_zeros(num_outputs)
    for penalty in PENALTIES:
        if penalty >= last:
            weight, bias = _minimised(features, targets, loss, penalty, weight, bias)
            yield penalty, weight, bias


def _minimised(
    features: Tensor, targets: Tensor, loss: Loss, penalty: float, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The optimum, sought from this weight and bias on."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=200, tolerance_grad=1e-6, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(features @ weight.T + bias, targets) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    return weight.detach(), bias.detach()
