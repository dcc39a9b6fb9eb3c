"""The optimal linear layer for given features: regularised logistic regression, solved by L-BFGS."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headstart.heads.folds import folds, stratified_folds

Loss = Callable[[Tensor, Tensor], Tensor]
PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(0, -13, -1))
"""L2 penalties from 1 down to 1e-6, for features with a mean squared norm of 1."""
DEFAULT_PENALTY = 1e-2
"""Used when no samples can be held out, because too many classes have a single sample."""
NUM_FOLDS = 5
MAX_SAMPLES_FOR_ALL_FOLDS = 5_000
"""With more samples one fold of a fifth is as reliable, and saves four fits."""


@dataclass(frozen=True)
class Solution:
    """A linear layer and how it was chosen.

    Attributes:
        weight: `(num_outputs, num_features)`.
        bias: `(num_outputs,)`.
        penalty: the chosen one.
        losses: penalty -> mean loss on held-out samples at the best temperature, as `_lowest_loss_and_factor` computes
            it; empty if no samples could be held out.
        held_out: logits and targets of the held-out samples with the chosen penalty; None if there were none.
        method: in words.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    losses: dict[float, float]
    held_out: tuple[Tensor, Tensor] | None = None
    method: str = "logistic regression"

    def with_targets(self, targets: Tensor) -> "Solution":
        """The same solution with other targets `(samples, ...)`, if every sample was held out."""
        return replace(self, held_out=None if self.held_out is None else (self.held_out[0], targets))


@dataclass(frozen=True)
class _Trial:
    """The result of a penalty on held-out samples.

    Attributes:
        loss: mean loss at the best temperature.
        factor: of the logits at the best temperature.
        logits, targets: of the held-out samples.
    """

    loss: float
    factor: float
    logits: Tensor
    targets: Tensor


def solve(features: Tensor, targets: Tensor, loss: Loss, num_outputs: int, seed: int = 0) -> Solution:
    """Minimises `loss(features @ W.T + b, targets) + penalty / 2 * |W|^2` over all samples by L-BFGS.

    Features are first centred and divided by one number, so that the same penalties fit every backbone. The chosen
    penalty has the lowest loss on held-out folds of these samples. Each penalty is measured at its best temperature
    (one factor for all logits, Guo et al. 2017, https://arxiv.org/abs/1706.04599), because the loss alone would choose
    weak penalties for their confidence. The solution is scaled by its temperature, too. Even without held-out errors,
    an error rate of 1 / (n + 2) is assumed for n samples (Laplace's rule of succession; Platt 1999, section 2, softens
    the targets for the same reason); otherwise the confidence would be infinite. With class weights, n is the effective
    number of samples (Kish 1965, section 11.7), which is smaller.

    Args:
        features: `(samples, num_features)`.
        targets: class indices `(samples,)`, or zeros and ones `(samples, num_classes)`.
        loss: logits `(n, num_outputs)` and targets -> mean loss, convex in the logits.
        num_outputs: number of logits per sample.
        seed: of the folds.
    """
    centred, mean, scale = centred_and_scaled(features)
    reduced, basis = in_their_span(centred)
    tried = _try_penalties(reduced, targets, loss, num_outputs, seed)
    penalty = min(tried, key=lambda p: tried[p].loss, default=DEFAULT_PENALTY)
    best = tried.get(penalty)
    factor = best.factor if best else 1.0
    *_, (_, weight, bias) = _fits(reduced, targets, loss, num_outputs, last=penalty)
    weight = factor * (weight if basis is None else weight @ basis) / scale
    losses = {penalty: trial.loss for penalty, trial in tried.items()}
    held_out = (best.factor * best.logits, best.targets) if best else None
    return Solution(weight, factor * bias - weight @ mean, penalty, losses, held_out)


def out_of_fold(features: Tensor, targets: Tensor, loss: Loss, num_outputs: int, seed: int = 0) -> Tensor | None:
    """The logits `(samples, num_outputs)` of each sample from a solution that was fitted without it.

    Takes the same arguments as `solve`, and chooses penalty and temperature in the same way.

    Returns:
        None if a class has a single sample, so that it cannot be held out.
    """
    if targets.ndim == 1 and 1 in targets.bincount():
        return None
    reduced, _ = in_their_span(centred_and_scaled(features)[0])
    tried = _try_penalties(reduced, targets, loss, num_outputs, seed)
    if not tried:
        return None
    penalty = min(tried, key=lambda p: tried[p].loss)
    logits = features.new_zeros(len(features), num_outputs)
    for kept, held in _folds(targets, seed, max_samples=len(targets)):
        *_, (_, weight, bias) = _fits(reduced[kept], targets[kept], loss, num_outputs, last=penalty)
        logits[held] = tried[penalty].factor * (reduced[held] @ weight.T + bias)
    return logits


def centred_and_scaled(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features centred and scaled to a mean squared norm of 1; the mean; and the number they were divided by."""
    mean = features.mean(dim=0)
    centred = features - mean
    scale = centred.square().sum(dim=1).mean().sqrt().clamp_min(1e-12)
    return centred / scale, mean, scale


def in_their_span(features: Tensor) -> tuple[Tensor, Tensor | None]:
    """The features in the space that their rows span, if it is smaller, and its basis. The optimum lies in it."""
    samples, size = features.shape
    if samples >= size:
        return features, None
    basis = torch.linalg.svd(features, full_matrices=False).Vh
    return features @ basis.T, basis


def _try_penalties(features: Tensor, targets: Tensor, loss: Loss, num_outputs: int, seed: int) -> dict[float, _Trial]:
    """Penalty -> its result on held-out samples, from the strongest penalty on.

    Stops after two penalties without an improvement: weaker ones are not better, and are the slowest.
    """
    folds = _folds(targets, seed)
    fits_of_folds = [_fits(features[kept], targets[kept], loss, num_outputs) for kept, _ in folds]
    truth = torch.cat([targets[held] for _, held in folds]) if folds else targets
    tried: dict[float, _Trial] = {}
    for fits in zip(*fits_of_folds, strict=True):
        logits = torch.cat([features[held] @ w.T + b for (_, held), (_, w, b) in zip(folds, fits, strict=True)])
        tried[fits[0][0]] = _Trial(*_lowest_loss_and_factor(logits, truth, loss), logits, truth)
        losses = [trial.loss for trial in tried.values()]
        if min(losses[:-2], default=float("inf")) < min(losses[-2:]):
            break
    return tried


def _lowest_loss_and_factor(logits: Tensor, targets: Tensor, loss: Loss) -> tuple[float, float]:
    """The lowest loss and the factor of the logits that has it, if one of `n + 2` samples has a wrong target."""
    error_rate, wrong = 1 / (_effective_samples(logits, targets, loss) + 2), _wrong_targets(targets, logits.shape[1])

    def expected_loss(exponent: float) -> float:
        scaled = 10**exponent * logits
        return torch.lerp(loss(scaled, targets), loss(scaled, wrong), error_rate).item()

    from scipy.optimize import minimize_scalar  # imported here, because most commands fit no head

    found = minimize_scalar(expected_loss, bounds=(-2, 2), method="bounded", options={"xatol": 0.01})
    return found.fun, 10**found.x


def _effective_samples(logits: Tensor, targets: Tensor, loss: Loss) -> float:
    """`(sum of w)^2 / sum of w^2`, with the weight w of each sample in the loss: its gradient at logits of 0."""
    zeros = torch.zeros_like(logits, requires_grad=True)
    weights = torch.autograd.grad(loss(zeros, targets), zeros)[0].norm(dim=1)
    return (weights.sum().square() / weights.square().sum()).item()


def _wrong_targets(targets: Tensor, num_outputs: int) -> Tensor:
    """Targets that are all wrong: a random other class, or the opposite of each label."""
    if targets.ndim == 2:
        return 1 - targets
    num_classes = max(num_outputs, 2)  # a single output is for two classes
    draws = torch.Generator().manual_seed(0)
    return (targets + torch.randint(1, num_classes, targets.shape, generator=draws).to(targets)) % num_classes


def _folds(targets: Tensor, seed: int, max_samples: int = MAX_SAMPLES_FOR_ALL_FOLDS) -> list[tuple[Tensor, Tensor]]:
    """Positions to fit and positions to hold out, of each fold.

    The only sample of a class is used for fitting in all folds. With more than `max_samples` samples there is one fold.
    There is none if more than a fifth of the classes have a single sample: a penalty that is chosen without these
    classes would not suit them.
    """
    targets = targets.cpu()
    if targets.ndim == 1:
        sizes = targets.bincount()
        single = sizes[targets] == 1
        number = min(NUM_FOLDS, int(sizes.max()))
    else:
        single = torch.zeros(len(targets), dtype=torch.bool)
        number = min(NUM_FOLDS, len(targets))
    if number < 2 or NUM_FOLDS * len(targets[single]) > len(targets.unique(dim=0)):
        return []
    alone, others = single.nonzero()[:, 0], (~single).nonzero()[:, 0]
    by_class = targets.ndim == 1
    found = stratified_folds(targets[others].numpy(), number, seed) if by_class else folds(len(others), number, seed)
    held = [torch.from_numpy(found == fold) for fold in range(number)]
    cuts = [(torch.cat([others[~each], alone]), others[each]) for each in held]
    return cuts if len(targets) <= max_samples else cuts[:1]


def _fits(
    features: Tensor, targets: Tensor, loss: Loss, num_outputs: int, last: float = 0.0
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Penalty, weight and bias, from the strongest penalty down to `last`. Each fit starts from the one before."""
    weight, bias = features.new_zeros(num_outputs, features.shape[1]), features.new_zeros(num_outputs)
    for penalty in PENALTIES:
        if penalty >= last:
            weight, bias = _minimise(features, targets, loss, penalty, weight, bias)
            yield penalty, weight, bias


def _minimise(
    features: Tensor, targets: Tensor, loss: Loss, penalty: float, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The optimal weight and bias, starting from the given ones."""
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
