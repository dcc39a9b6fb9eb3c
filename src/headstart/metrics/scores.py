"""Comparison of metrics: whether a higher or a lower value is better."""

import math

LOWER_IS_BETTER = ("loss", "ece", "perplexity", "mae", "rmse")
"""Metrics whose lowest value is the best, without the split before the name. For all others the highest is the best."""
ONE_WITHOUT_MISTAKE = ("acc", "acc_macro", "acc_exact")
"""Metrics that are 1 when no prediction is wrong."""


def best_is(monitor: str) -> str:
    """`min` for losses, errors and perplexities, else `max`. The name is `val/acc` or `acc`."""
    return "min" if monitor.rpartition("/")[2] in LOWER_IS_BETTER else "max"


def goodness(score: float | None, monitor: str) -> float:
    """The score with the sign that makes higher better. A score that is missing or NaN is worse than all others."""
    if score is None or math.isnan(score):
        return -math.inf
    return score if best_is(monitor) == "max" else -score


def is_better(score: float, other: float | None, monitor: str) -> bool:
    """Whether a score is better than another one. NaN never is; any number is better than a missing score."""
    return goodness(score, monitor) > goodness(other, monitor)


def no_mistake(monitor: str) -> float | None:
    """The score of predictions without a mistake, 1; None for metrics that do not count mistakes, such as losses."""
    return 1.0 if monitor.rpartition("/")[2] in ONE_WITHOUT_MISTAKE else None
