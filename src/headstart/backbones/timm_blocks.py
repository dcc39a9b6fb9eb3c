"""Where the blocks of timm's networks begin."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from torch import nn

STAGES = {
    "CSATv2": "stages",
    "MetaFormer": "stages",
    "PoolingVisionTransformer": "transformers",
    "RDNet": "dense_stages",
}
"""Networks without coarse layer groups of timm's own: class -> the child whose children are the blocks."""


def blocks_of(net: nn.Module) -> list[str]:
    """Names of the modules where timm's coarse layer groups (blocks of a ViT, stages of others) begin, by position.

    Parameters before the first block, and groups that begin with them, belong to the stem. A group without a matrix,
    such as a last norm, is left out: it belongs to the block before it.
    """
    if type(net).__name__ in STAGES:
        container = STAGES[type(net).__name__]
        return [f"{container}.{name}" for name, _ in net.get_submodule(container).named_children()]
    group_of = _groups(net)
    starts, seen = [], {next(iter(group_of.values()))}
    for group, modules in groupby(_owners(net, group_of), key=lambda owner: owner[1]):
        name = next(modules)[0]
        if group in seen or not name:
            continue
        seen.add(group)
        if any(parameter.ndim > 1 for key, parameter in net.named_parameters() if group_of[key] == group):
            starts.append(_outermost(name, group, group_of))
    return starts


def _groups(net: nn.Module) -> dict[str, Any]:
    """Name of each parameter, in the order of the network -> number of its group."""
    from timm.models import group_parameters

    numbers = group_parameters(net, net.group_matcher(coarse=True), reverse=True)
    return {name: numbers[name] for name, _ in net.named_parameters()}


def _owners(net: nn.Module, group_of: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name of a module and group of a parameter of its own, from input to output."""
    for module_name, module in net.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            key = f"{module_name}.{name}" if module_name else name
            if key in group_of:  # a shared parameter counts where it is first
                yield module_name, group_of[key]


def _outermost(name: str, group: Any, group_of: dict[str, Any]) -> str:
    """The largest module around the module `name` whose parameters are all in the group."""
    parts = name.split(".")
    around = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return next(
        module for module in around if all(group_of[key] == group for key in group_of if key.startswith(f"{module}."))
    )
