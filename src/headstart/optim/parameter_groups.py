"""How fast each layer group learns: named parameter groups. How the rates move is `schedules.py`'s business."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from headstart.backbones.base import LayerGroup
from headstart.errors import UsageError


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
