"""95 % intervals of metrics by the bootstrap.

A draw takes n of the n samples with replacement. The metric is computed for each draw; the interval goes from the 2.5th
to the 97.5th percentile (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13). A draw is a column
of counts: how often it has each sample. So all draws are computed at once.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torchmetrics import Metric

from headstart.metrics.calibration import calibration_errors
from headstart.metrics.predictions import Predictions

NUM_DRAWS = 1000
MAX_COUNTS_IN_MEMORY = 20_000_000
"""Samples times draws (80 MB)."""
MAX_POSITIVES_FOR_PAIRS = 128
"""Up to this number of positives, each is compared with every negative; with more, sorting is faster."""
MAX_POSITIVES_AT_A_TIME = 1024
"""More comparisons would need too much memory."""

Statistic = Callable[[Tensor], Tensor]  # counts (samples, draws) -> the metric of each draw (draws,)


def bootstrap_intervals(
    statistics: dict[str, Statistic], samples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each metric. Draws in which a metric is undefined (NaN) do not count.

    Args:
        statistics: name -> function that computes the metric of each draw.
        samples: number of samples.
        seed: of the draws.

    Returns:
        name -> lower and upper end; NaN if the metric is undefined in all draws.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in statistics}
    for counts in _draws(samples, seed):
        for name, statistic in statistics.items():
            values[name].append(statistic(counts))
    return {name: tuple(_ends(parts).tolist()) for name, parts in values.items()}


def f1_intervals(predictions: Predictions, seed: int = 0) -> list[tuple[float, float]]:
    """The 95 % interval of the F1 of each class: lower and upper end; NaN for a class that no draw has.

    Args:
        predictions: of a split.
        seed: of the draws.
    """
    count = _label_counts if predictions.multi_label else _class_counts
    parts = []
    for draws in _draws(len(predictions), seed):
        right, actual, predicted = count(predictions, draws)
        parts.append(_f1(right, actual, predicted).where(actual + predicted > 0, torch.nan))
    return list(zip(*_ends(parts).tolist(), strict=True))


def _ends(parts: list[Tensor]) -> Tensor:
    """Ends `(2, ...)` of 95 % intervals, from values `(..., draws)` in parts. Draws with NaN do not count."""
    limits = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return torch.cat(parts, dim=-1).double().nanquantile(limits, dim=-1)


def describe_no_mistake(samples: int) -> str:
    """A sentence for predictions without a mistake, whose bootstrap interval has no width.

    It names the lower end of the exact 95 % interval of the accuracy (Clopper and Pearson 1934, Biometrika 26).
    """
    return (
        f"no mistake among {samples:,} samples, so the bootstrap interval has no width: the true accuracy may be as "
        f"low as {0.025 ** (1 / samples):.3f} (Clopper and Pearson)"
    )


def _draws(samples: int, seed: int) -> Iterator[Tensor]:
    """How often each sample is in each of `NUM_DRAWS` draws: `(samples, draws)`, some of the draws at a time."""
    random = torch.Generator().manual_seed(seed)
    size = max(1, min(NUM_DRAWS, MAX_COUNTS_IN_MEMORY // samples))
    for start in range(0, NUM_DRAWS, size):
        number = min(size, NUM_DRAWS - start)
        drawn = torch.randint(samples, (samples, number), generator=random)
        yield torch.zeros(samples, number).scatter_add_(0, drawn, torch.ones(samples, number))


def statistics_of(predictions: Predictions, losses: Tensor, weights: Tensor, bins: int) -> dict[str, Statistic]:
    """The metrics of evaluation (`tasks/objectives.py`) as functions of the counts of the samples.

    Args:
        predictions: of the split.
        losses: `(samples,)`.
        weights: of the losses in their mean, `(samples,)`.
        bins: number of bins of the calibration error.
    """
    right = predictions.is_right.float()
    found: dict[str, Statistic] = {"loss": mean_loss(losses, weights)}
    if predictions.multi_label:
        by_label = (predictions.answer == predictions.truth).float().mean(dim=1)
        found |= {"acc": lambda n: _mean(by_label, n), "acc_exact": lambda n: _mean(right, n)}
        found["f1_macro"] = lambda n: _f1(*_label_counts(predictions, n)).mean(dim=0)
        found["map"] = lambda n: _average_precisions(predictions.probabilities, predictions.truth, n).nanmean(dim=0)
    else:
        found |= {"acc": lambda n: _mean(right, n), "acc_macro": lambda n: _macro(_recall, predictions, n)}
        found["f1_macro"] = lambda n: _macro(_f1, predictions, n)
        confidence = predictions.probabilities.amax(dim=1)
        found["ece"] = lambda n: calibration_errors(confidence, right, n, bins)
    found["auroc_macro"] = lambda n: _auroc_macro(predictions.probabilities, predictions.truth, n)
    return found


def mean_loss(losses: Tensor, weights: Tensor) -> Statistic:
    """The weighted mean of losses as such a function.

    Args:
        losses: `(samples,)`.
        weights: `(samples,)`.
    """
    return lambda counts: (losses * weights) @ counts / (weights @ counts)


def resampled_metric(metric: Metric, probabilities: Tensor, targets: Tensor) -> Statistic:
    """Any metric of torchmetrics as such a function. It is slow: the metric is computed for one draw after another.

    Args:
        metric: takes probabilities and targets.
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
    """Samples of each class in each draw, three times `(classes, draws)`: correct ones, true ones, predicted ones."""
    zeros = counts.new_zeros(len(predictions.classes), counts.shape[1])
    hits = counts * predictions.is_right[:, None]
    groups = (predictions.targets, hits), (predictions.targets, counts), (predictions.predicted, counts)
    return tuple(zeros.index_add(0, group, values) for group, values in groups)


def _label_counts(predictions: Predictions, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for several labels per sample."""
    truth, answer = predictions.truth, predictions.answer
    return tuple(members.float().T @ counts for members in (truth & answer, truth, answer))


def _recall(right: Tensor, actual: Tensor, predicted: Tensor) -> Tensor:
    return right / actual.clamp_min(1)


def _f1(right: Tensor, actual: Tensor, predicted: Tensor) -> Tensor:
    return 2 * right / (actual + predicted).clamp_min(1)


def _macro(score: Callable[..., Tensor], predictions: Predictions, counts: Tensor) -> Tensor:
    """The mean over the classes that occur in a draw, as true or as predicted classes; as in torchmetrics."""
    of_class = _class_counts(predictions, counts)
    seen = of_class[1] + of_class[2] > 0
    return (score(*of_class) * seen).sum(dim=0) / seen.sum(dim=0)


def _auroc_macro(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """The mean area under the ROC curves of the classes that have both positives and negatives in a draw.

    The area is the share of pairs of a positive and a negative in the right order; ties count half (Mann-Whitney).
    """
    number = truth.sum(dim=0)
    areas = counts.new_full((len(number), counts.shape[1]), torch.nan)
    for c in (number > MAX_POSITIVES_FOR_PAIRS).nonzero()[:, 0].tolist():
        areas[c] = _auroc_by_sorting(scores[:, c], truth[:, c], counts)
    few = ((number > 0) & (number <= MAX_POSITIVES_FOR_PAIRS)).nonzero()[:, 0]
    if len(few):
        for classes in few.split(max(1, MAX_POSITIVES_AT_A_TIME // int(number[few].max()))):
            areas[classes] = _aurocs_by_pairs(scores[:, classes].T, truth[:, classes].T, counts)
    return areas.nanmean(dim=0)


def _average_precisions(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """The average precision of each label in each draw, `(labels, draws)`; NaN without positives or negatives.

    The mean of the precision over the positives, each at the threshold of its own score: scikit-learn's
    `average_precision_score`.
    """
    rows = []
    for score, true in zip(scores.T, truth.T, strict=True):
        values, order = score.sort(descending=True)
        drawn = counts[order]
        hits = (drawn * true[order, None]).cumsum(dim=0)
        last = torch.searchsorted(-values, -values, right=True) - 1  # equal scores have one threshold
        precision = hits[last] / drawn.cumsum(dim=0)[last].clamp_min(1)
        number, total = hits[-1], drawn.sum(dim=0)
        rows.append((precision * drawn * true[order, None]).sum(dim=0) / number)
        rows[-1][number >= total] = torch.nan
    return torch.stack(rows)


def _auroc_by_sorting(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """The area of one class in each draw."""
    positives, negatives = counts[truth], counts[~truth]
    of_negatives, order = scores[~truth].sort()
    reached = torch.cat([counts.new_zeros(1, counts.shape[1]), negatives[order].cumsum(dim=0)])
    edges = (torch.searchsorted(of_negatives, scores[truth], right=right) for right in (False, True))
    below = sum(reached[edge] for edge in edges) / 2
    return (positives * below).sum(dim=0) / (positives.sum(dim=0) * negatives.sum(dim=0))


def _aurocs_by_pairs(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """The areas of several classes `(classes, samples)` in each draw, by one product of matrices."""
    place, sample = truth.nonzero(as_tuple=True)
    own, others = scores[place, sample][:, None], scores[place]
    above = ((own > others).float() + (own == others).float() / 2) * ~truth[place]
    zeros = counts.new_zeros(len(truth), counts.shape[1])
    ordered = zeros.index_add(0, place, (above @ counts) * counts[sample])
    positives = zeros.index_add(0, place, counts[sample])
    return ordered / (positives * (counts.sum(dim=0) - positives))
