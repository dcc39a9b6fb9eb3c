"""Curves of the learning rate over a run that torch does not bring."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from headstart.errors import UsageError


def warmup_cosine(
    optimizer: Optimizer, total_steps: int | None = None, warmup: float = 0.05, final: float = 0.0
) -> LambdaLR:
    """Linear warm-up over the first `warmup` share of the steps, then half a cosine down to `final`.

    Args:
        optimizer: its groups' rates are the peaks.
        total_steps: optimizer steps of the run; null in a config is filled in.
        warmup: share of `total_steps`, 0 to below 1.
        final: last rate relative to the peak, 0 to 1.

    Raises:
        UsageError: a share that is not possible.
    """
    assert total_steps, "filled in by build_scheduler"
    if not 0 <= warmup < 1:
        raise UsageError(f"scheduler.warmup={warmup}: give a share of the run from 0 to below 1, e.g. 0.05")
    if not 0 <= final <= 1:
        raise UsageError(f"scheduler.final={final}: give the last rate relative to the highest, from 0 to 1, e.g. 0.01")
    rise = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        progress = min((step - rise) / max(total_steps - rise, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return _named("warmup_cosine", LambdaLR(optimizer, factor), total_steps)


def slanted_triangular(
    optimizer: Optimizer, total_steps: int | None = None, cut_fraction: float = 0.1, ratio: float = 32
) -> LambdaLR:
    """A short linear rise to the peak, then a long linear fall (Howard and Ruder 2018, equation 3).

    https://arxiv.org/abs/1801.06146: T steps, cut = floor(T * cut_fraction); p = t / cut in the rise and
    1 - (t - cut) / (cut * (1 / cut_fraction - 1)) in the fall; the factor is (1 + p * (ratio - 1)) / ratio. Two things
    are not in the paper: the rise takes at least one step, and p stays at 0 where rounding `cut` down would make the
    fall end before the run and the rates negative.

    Args:
        optimizer: its groups' rates are the peaks.
        total_steps: optimizer steps of the run; null in a config is filled in.
        cut_fraction: share of the steps in which the rates rise, between 0 and 1.
        ratio: how much lower the lowest rate is than the peak, 1 or more.

    Raises:
        UsageError: a share or ratio that is not possible.
    """
    assert total_steps, "filled in by build_scheduler"
    if not 0 < cut_fraction < 1:
        raise UsageError(f"scheduler.cut_fraction={cut_fraction}: give a share of the run between 0 and 1, e.g. 0.1")
    if not ratio >= 1:
        raise UsageError(f"scheduler.ratio={ratio}: the peak is so many times the lowest rate; give 1 or more, e.g. 32")
    cut = max(math.floor(total_steps * cut_fraction), 1)
    fall = cut * (1 / cut_fraction - 1)

    def factor(step: int) -> float:
        p = step / cut if step < cut else max(1 - (step - cut) / fall, 0.0)
        return (1 + p * (ratio - 1)) / ratio

    return _named("slanted_triangular", LambdaLR(optimizer, factor), total_steps)


def _named(name: str, scheduler: LambdaLR, total_steps: int) -> LambdaLR:
    """Lets a run that goes on tell that it has the same curve of the same length; a lambda itself is not saved."""
    scheduler.name, scheduler.total_steps = name, total_steps
    return scheduler
