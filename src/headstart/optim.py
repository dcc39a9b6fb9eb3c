"""How fast each layer group learns: named parameter groups, and schedulers that know the length of the run."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from headstart.backbones.base import LayerGroup
from headstart.errors import UsageError

# Constructor arguments by which torch's schedulers are told how many steps a run has
HORIZONS = ("total_steps", "T_max")


def rate_ratios(groups: Sequence[LayerGroup], backbone_lr_ratio: float, layer_lr_decay: float) -> dict[str, float]:
    """Rate of every layer group relative to the base rate, which is the head's.

    The last block learns at `backbone_lr_ratio`; each group towards the stem at `layer_lr_decay` times the rate of
    the one above it (discriminative fine-tuning, Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, 3.1: 1/2.6).

    Args:
        groups: the backbone's groups from the stem to the last block.
        backbone_lr_ratio: above 0.
        layer_lr_decay: above 0 and at most 1; 1 gives every group the same rate.

    Returns:
        group name -> ratio, in the given order.
    """
    if not backbone_lr_ratio > 0:
        raise UsageError(
            f"task.backbone_lr_ratio={backbone_lr_ratio}: give a number above 0; "
            "to leave the backbone as it is, use finetuning=feature_extraction"
        )
    if not 0 < layer_lr_decay <= 1:
        raise UsageError(f"task.layer_lr_decay={layer_lr_decay}: give a number above 0 and up to 1, e.g. 0.7")
    last = len(groups) - 1
    return {group.name: backbone_lr_ratio * layer_lr_decay ** (last - place) for place, group in enumerate(groups)}


def parameter_groups(
    layers: Sequence[LayerGroup], head: nn.Module, optimizer: Callable[..., Optimizer], ratios: dict[str, float]
) -> list[dict[str, Any]]:
    """Every parameter in exactly one named optimizer group, `head` last; those of one dimension without weight decay.

    Frozen parameters are in them too: without a gradient no optimizer touches them, and every scheduler sees the
    same groups from the first step to the last.

    Args:
        layers: the backbone's groups.
        head: the new head.
        optimizer: a partial of a torch optimizer; its `lr` is the base rate.
        ratios: as `rate_ratios` returns them.

    Returns:
        optimizer groups with `name`, `params`, `lr` and, for norms and biases, `weight_decay` 0.
    """
    base = default_of(optimizer, "lr")
    named = [(group.name, list(group.named_parameters()), base * ratios[group.name]) for group in layers]
    named.append(("head", list(head.named_parameters()), base))
    decays = "weight_decay" in inspect.signature(optimizer).parameters
    groups = []
    for name, parameters, lr in named:
        flat = [p for _, p in parameters if p.ndim <= 1]
        if shaped := [p for _, p in parameters if p.ndim > 1]:
            groups.append({"name": name, "params": shaped, "lr": lr})
        if flat:
            no_decay = {"weight_decay": 0.0} if decays else {}
            groups.append({"name": f"{name}/no_decay", "params": flat, "lr": lr, **no_decay})
    return groups


def default_of(factory: Callable[..., Any], argument: str) -> Any:
    """The value a partial will call its function with, given or default."""
    return inspect.signature(factory).parameters[argument].default


def build_scheduler(factory: Callable[..., LRScheduler], optimizer: Optimizer, total_steps: int) -> tuple[Any, str]:
    """Builds a torch scheduler from a partial, filling in what only the run knows.

    A horizon (`total_steps`, `T_max`) left null becomes the number of optimizer steps of the run. Schedulers told a
    horizon so, and all that take `total_steps`, step with the optimizer; every other one counts epochs. A null `max_lr`
    becomes the groups' own rates.

    Returns:
        the scheduler, and the interval it steps at: `step` or `epoch`.
    """
    filled: dict[str, Any] = {}
    given = factory.keywords if isinstance(factory, partial) else {}
    horizon = next((name for name in HORIZONS if name in given and given[name] is None), None)
    if horizon:
        filled[horizon] = max(total_steps, 1)
    if "max_lr" in given and given["max_lr"] is None:
        filled["max_lr"] = [group["lr"] for group in optimizer.param_groups]
    counts_steps = horizon or "total_steps" in inspect.signature(factory).parameters
    return factory(optimizer, **filled), "step" if counts_steps else "epoch"


def warmup_cosine(
    optimizer: Optimizer, total_steps: int | None = None, warmup: float = 0.05, final: float = 0.0
) -> LambdaLR:
    """Linear warm-up over the first `warmup` share of the steps, then half a cosine down to `final`.

    Args:
        optimizer: its groups' rates are the peaks.
        total_steps: optimizer steps of the run; null in a config is filled in.
        warmup: share of `total_steps`, 0 to below 1.
        final: last rate relative to the peak.
    """
    assert total_steps, "filled in by build_scheduler"
    rise = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        progress = min((step - rise) / max(total_steps - rise, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)
