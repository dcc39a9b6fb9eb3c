"""How far a metric may be off: 95 % intervals by the bootstrap.

Samples are drawn with replacement, as many as there are, and the metric is computed of each draw; the interval goes
from the 2.5th to the 97.5th percentile (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13).
A draw is a column of counts, how often it has each sample, so that all draws are computed at once.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torchmetrics import Metric

from headstart.metrics.calibration import calibration_errors
from headstart.metrics.predictions import Predictions

DRAWS = 1000
CELLS = 20_000_000
"""Samples times draws held at a time (80 MB)."""
FEW = 128
"""Up to so many positives they are compared with every negative; with more, sorting and adding up is faster."""
ROWS = 1024
"""So many positives are compared at a time."""

Statistic = Callable[[Tensor], Tensor]  # counts (samples, draws) -> the metric of each draw (draws,)


def intervals(statistics: dict[str, Statistic], samples: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each metric. Draws that leave a metric undefined (NaN) do not count; NaN where all do.

    Args:
        statistics: name -> what computes the metric of each draw.
        samples: how many there are.
        seed: of the draws.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in statistics}
    for counts in _draws(samples, seed):
        for name, statistic in statistics.items():
            values[name].append(statistic(counts))
    limits = torch.tensor([0.025, 0.975], dtype=torch.float64)
    found = {name: torch.cat(parts).double().nanquantile(limits) for name, parts in values.items()}
    return {name: (low.item(), high.item()) for name, (low, high) in found.items()}


def without_mistake(samples: int) -> str:
    """What the bootstrap cannot know: how low the accuracy may be where all samples were answered rightly.

    The lower end of the exact 95 % interval (Clopper and Pearson 1934, Biometrika 26).
    """
    return (
        f"no mistake among {samples:,} samples, which the bootstrap takes for certainty: the accuracy may be no more "
        f"than {0.025 ** (1 / samples):.3f} (Clopper and Pearson)"
    )


def _draws(samples: int, seed: int) -> Iterator[Tensor]:
    """How often each sample is in each of `DRAWS` draws, `(samples, some of the draws)` at a time."""
    random = torch.Generator().manual_seed(seed)
    size = max(1, min(DRAWS, CELLS // samples))
    for start in range(0, DRAWS, size):
        number = min(size, DRAWS - start)
        drawn = torch.randint(samples, (samples, number), generator=random)
        yield torch.zeros(samples, number).scatter_add_(0, drawn, torch.ones(samples, number))


def statistics_of(predictions: Predictions, losses: Tensor, weights: Tensor, bins: int) -> dict[str, Statistic]:
    """The metrics of evaluation (`tasks/objectives.py`) as functions of how often each sample counts.

    Args:
        predictions: of the split.
        losses: `(samples,)`.
        weights: `(samples,)`, what each loss counts in the mean.
        bins: of the calibration error.
    """
    truth, right = predictions.truth, predictions.is_right.float()
    found: dict[str, Statistic] = {"loss": lambda n: (losses * weights) @ n / (weights @ n)}
    if predictions.multi_label:
        by_label = (predictions.answer == truth).float().mean(dim=1)
        found |= {"acc": lambda n: _mean(by_label, n), "acc_exact": lambda n: _mean(right, n)}
        found["f1_macro"] = lambda n: _f1(*_label_counts(predictions, n)).mean(dim=0)
    else:
        found |= {"acc": lambda n: _mean(right, n), "acc_macro": lambda n: _macro(_recall, predictions, n)}
        found["f1_macro"] = lambda n: _macro(_f1, predictions, n)
        confidence = predictions.probabilities.amax(dim=1)
        found["ece"] = lambda n: calibration_errors(confidence, right, n, bins)
    found["auroc_macro"] = lambda n: _auroc_macro(predictions.probabilities, truth, n)
    return found


def resampled(metric: Metric, probabilities: Tensor, targets: Tensor) -> Statistic:
    """Any metric as such a function: it is computed for each draw from scratch, which is slow.

    Args:
        metric: a metric of torchmetrics over probabilities and targets.
        probabilities: `(samples, classes)`.
        targets: as the metric takes them, `(samples, ...)`.
    """
    metric = metric.clone().cpu()

    def of_draws(counts: Tensor) -> Tensor:
        values = []
        for column in counts.T.long():
            metric.reset()
            metric.update(probabilities.repeat_interleave(column, dim=0), targets.repeat_interleave(column, dim=0))
            values.append(metric.compute().float())
        metric.reset()
        return torch.stack(values)

    return of_draws


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return values @ counts / len(values)


def _class_counts(predictions: Predictions, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class and draw `(classes, draws)`: how many are right, are of the class, are taken for it."""
    zeros = counts.new_zeros(len(predictions.classes), counts.shape[1])
    hits = counts * predictions.is_right[:, None]
    groups = (predictions.targets, hits), (predictions.targets, counts), (predictions.predicted, counts)
    return tuple(zeros.index_add(0, group, values) for group, values in groups)


def _label_counts(predictions: Predictions, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for several labels a sample."""
    truth, answer = predictions.truth, predictions.answer
    return tuple(members.float().T @ counts for members in (truth & answer, truth, answer))


def _recall(right: Tensor, actual: Tensor, predicted: Tensor) -> Tensor:
    return right / actual.clamp_min(1)


def _f1(right: Tensor, actual: Tensor, predicted: Tensor) -> Tensor:
    return 2 * right / (actual + predicted).clamp_min(1)


def _macro(score: Callable[..., Tensor], predictions: Predictions, counts: Tensor) -> Tensor:
    """The mean over the classes that a draw has or that are predicted in it, as torchmetrics has it."""
    of_class = _class_counts(predictions, counts)
    seen = of_class[1] + of_class[2] > 0
    return (score(*of_class) * seen).sum(dim=0) / seen.sum(dim=0)


def _auroc_macro(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """The mean area under the ROC curves of the classes of which a draw has some samples and some not.

    The area is the share of pairs of a positive and a negative in the right order, equals half (Mann-Whitney).
    """
    number = truth.sum(dim=0)
    areas = counts.new_full((len(number), counts.shape[1]), torch.nan)
    for c in (number > FEW).nonzero()[:, 0].tolist():
        areas[c] = _auroc_by_sorting(scores[:, c], truth[:, c], counts)
    few = ((number > 0) & (number <= FEW)).nonzero()[:, 0]
    if len(few):
        for classes in few.split(max(1, ROWS // int(number[few].max()))):
            areas[classes] = _aurocs_by_pairs(scores[:, classes].T, truth[:, classes].T, counts)
    return areas.nanmean(dim=0)


def _auroc_by_sorting(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Of one class in each draw."""
    positives, negatives = counts[truth], counts[~truth]
    of_negatives, order = scores[~truth].sort()
    reached = torch.cat([counts.new_zeros(1, counts.shape[1]), negatives[order].cumsum(dim=0)])
    edges = (torch.searchsorted(of_negatives, scores[truth], right=right) for right in (False, True))
    below = sum(reached[edge] for edge in edges) / 2
    return (positives * below).sum(dim=0) / (positives.sum(dim=0) * negatives.sum(dim=0))


def _aurocs_by_pairs(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Of several classes `(classes, samples)` in each draw, by one product of matrices."""
    place, sample = truth.nonzero(as_tuple=True)
    own, others = scores[place, sample][:, None], scores[place]
    above = ((own > others).float() + (own == others).float() / 2) * ~truth[place]
    zeros = counts.new_zeros(len(truth), counts.shape[1])
    ordered = zeros.index_add(0, place, (above @ counts) * counts[sample])
    positives = zeros.index_add(0, place, counts[sample])
    return ordered / (positives * (counts.sum(dim=0) - positives))
