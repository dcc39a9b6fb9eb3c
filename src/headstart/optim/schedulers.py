"""Learning rate schedulers that torch does not have."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from headstart.errors import UsageError


def warmup_cosine(
    optimizer: Optimizer, total_steps: int | None = None, warmup: float = 0.05, final: float = 0.0
) -> LambdaLR:
    """Linear warm-up over the first `warmup` share of the steps, then half a cosine down to `final`.

    Args:
        optimizer: the learning rates of its groups are the peaks.
        total_steps: optimizer steps of the run; null in a config is filled in.
        warmup: share of `total_steps`, from 0 to below 1.
        final: last learning rate relative to the peak, from 0 to 1.

    Raises:
        UsageError: `warmup` or `final` is out of its range.
    """
    assert total_steps, "filled in by build_scheduler"
    if not 0 <= warmup < 1:
        raise UsageError(f"scheduler.warmup={warmup}: give a share of the run from 0 to below 1, e.g. 0.05")
    if not 0 <= final <= 1:
        raise UsageError(
            f"scheduler.final={final}: give the last learning rate relative to the highest, from 0 to 1, e.g. 0.01"
        )
    warmup_steps = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return _named("warmup_cosine", LambdaLR(optimizer, factor), total_steps)


def slanted_triangular(
    optimizer: Optimizer, total_steps: int | None = None, cut_fraction: float = 0.1, ratio: float = 32
) -> LambdaLR:
    """A short linear rise to the peak, then a long linear fall (Howard and Ruder 2018, equation 3).

    https://arxiv.org/abs/1801.06146: T steps, cut = floor(T * cut_fraction); p = t / cut in the rise and
    1 - (t - cut) / (cut * (1 / cut_fraction - 1)) in the fall; the factor is (1 + p * (ratio - 1)) / ratio. Two rules
    are not in the paper: the rise takes at least one step; and p is never negative, which it would become when `cut` is
    rounded down and the fall ends before the run.

    Args:
        optimizer: the learning rates of its groups are the peaks.
        total_steps: optimizer steps of the run; null in a config is filled in.
        cut_fraction: share of the steps in which the learning rates rise, between 0 and 1.
        ratio: the peak divided by the lowest learning rate, 1 or more.

    Raises:
        UsageError: `cut_fraction` or `ratio` is out of its range.
    """
    assert total_steps, "filled in by build_scheduler"
    if not 0 < cut_fraction < 1:
        raise UsageError(f"scheduler.cut_fraction={cut_fraction}: give a share of the run between 0 and 1, e.g. 0.1")
    if not ratio >= 1:
        raise UsageError(f"scheduler.ratio={ratio}: give 1 or more, the highest learning rate over the lowest, e.g. 32")
    cut = max(math.floor(total_steps * cut_fraction), 1)
    fall = cut * (1 / cut_fraction - 1)

    def factor(step: int) -> float:
        p = step / cut if step < cut else max(1 - (step - cut) / fall, 0.0)
        return (1 + p * (ratio - 1)) / ratio

    return _named("slanted_triangular", LambdaLR(optimizer, factor), total_steps)


def _named(name: str, scheduler: LambdaLR, total_steps: int) -> LambdaLR:
    """Names the scheduler and its length, which a resumed run compares. The lambda itself is not in a checkpoint."""
    scheduler.name, scheduler.total_steps = name, total_steps
    return scheduler
