"""The learning rate of each layer group, as parameter groups of the optimizer. `schedule.py` changes it over time."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from headstart.backbones.base import LayerGroup
from headstart.errors import UsageError


def lr_ratios(groups: Sequence[LayerGroup], backbone_lr_ratio: float, layer_lr_decay: float) -> dict[str, float]:
    """The learning rate of each layer group relative to the head's.

    The last block has the ratio `backbone_lr_ratio`. Each group before it has `layer_lr_decay` times the ratio of the
    next one (discriminative fine-tuning, Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, 3.1: 1/2.6).

    Args:
        groups: layer groups of the backbone, from the stem to the last block.
        backbone_lr_ratio: above 0.
        layer_lr_decay: above 0 and at most 1; 1 gives all groups the same learning rate.

    Returns:
        group name -> ratio, in the given order.

    Raises:
        UsageError: a number out of its range.
    """
    if not backbone_lr_ratio > 0:
        raise UsageError(
            f"task.backbone_lr_ratio={backbone_lr_ratio}: give a number above 0; "
            "to keep the backbone unchanged, use finetuning=feature_extraction"
        )
    if not 0 < layer_lr_decay <= 1:
        raise UsageError(f"task.layer_lr_decay={layer_lr_decay}: give a number above 0 and up to 1, e.g. 0.7")
    last = len(groups) - 1
    return {group.name: backbone_lr_ratio * layer_lr_decay ** (last - place) for place, group in enumerate(groups)}


def parameter_groups(
    layers: Sequence[LayerGroup], head: nn.Module, optimizer: Callable[..., Optimizer], ratios: dict[str, float]
) -> list[dict[str, Any]]:
    """Puts every parameter into exactly one named optimizer group, the head's last.

    Parameters of one dimension (norms and biases) are in groups of their own, without weight decay. Frozen parameters
    are in the groups, too: without a gradient no optimizer changes them, and every scheduler sees the same groups from
    the first step to the last.

    Args:
        layers: layer groups of the backbone.
        head: the new head.
        optimizer: a partial of a torch optimizer; its `lr` is the learning rate of the head.
        ratios: as `lr_ratios` returns them.

    Returns:
        optimizer groups with `name`, `params`, `lr`, and `weight_decay` 0 for norms and biases.
    """
    base = _argument_of(optimizer, "lr")
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


def _argument_of(factory: Callable[..., Any], argument: str) -> Any:
    """The value of an argument with which a partial calls its function, given or default."""
    return inspect.signature(factory).parameters[argument].default
