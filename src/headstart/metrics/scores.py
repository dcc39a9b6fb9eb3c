"""The direction of a metric: whether a higher or a lower value is better."""

import math

LOWER_IS_BETTER = ("loss", "ece")
"""Last parts of the names of metrics that are best at their minimum; every other one is best at its maximum."""
NO_ERROR = ("acc", "acc_macro", "acc_exact")
"""Metrics that are 1 when no answer is wrong."""


def best_is(monitor: str) -> str:
    """`min` for losses and calibration errors, `max` for every other metric, given as `val/acc` or `acc`."""
    return "min" if monitor.rpartition("/")[2] in LOWER_IS_BETTER else "max"


def goodness(score: float | None, monitor: str) -> float:
    """The score turned so that higher is better; a score that is missing or NaN is worse than all others."""
    if score is None or math.isnan(score):
        return -math.inf
    return score if best_is(monitor) == "max" else -score


def is_better(score: float, other: float | None, monitor: str) -> bool:
    """Whether a score beats another one; NaN never does, and any number beats no score at all."""
    return goodness(score, monitor) > goodness(other, monitor)


def no_mistake(monitor: str) -> float | None:
    """The score without any wrong answer, 1; None for metrics that do not count wrong answers, such as losses."""
    return 1.0 if monitor.rpartition("/")[2] in NO_ERROR else None
