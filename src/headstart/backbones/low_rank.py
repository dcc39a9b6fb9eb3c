"""Low-rank updates of a transformer's weights."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from headstart.errors import UsageError, printable


class LowRank(nn.Module):
    """A matrix plus the product of two low-rank matrices, which is zero at the start: `W + up @ down`.

    LoRA (Hu et al. 2022, https://arxiv.org/abs/2106.09685, section 4.1) without the constant factor alpha / rank. With
    Adam, that factor only scales the learning rate; use `task.backbone_lr_ratio` instead.

    Args:
        weight: the matrix, `(rows, columns)`.
        rank: columns of `up` and rows of `down`.
    """

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The updated matrix, with the shape of `weight`."""
        return weight + self.up @ self.down


def add_low_rank(network: nn.Module, rank: int) -> None:
    """Adds a low-rank update to every matrix in the attention and linear layers of a transformer, in place.

    If one matrix holds the projections to queries, keys and values, it gets one update for all three.

    Raises:
        UsageError: the network has no attention, or the rank is not a whole number of at least 1.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise UsageError(f"model.lora_rank={rank}: give a whole number of at least 1, such as 8, or null")
    kinds = {"weight": nn.Linear, "in_proj_weight": nn.MultiheadAttention}
    matrices = [
        (module, name)
        for module in network.modules()
        for name, kind in kinds.items()
        if isinstance(module, kind) and getattr(module, name) is not None
    ]
    if not matrices or not has_attention(network):
        raise UsageError(
            f"model.lora_rank={rank} is for transformers, and this network has no attention with linear layers: use "
            "finetuning=bitfit to train few parameters, or a model such as vit_b_16 or swin_t"
        )
    for module, name in matrices:
        parametrize.register_parametrization(module, name, LowRank(getattr(module, name), rank))


def has_attention(network: nn.Module) -> bool:
    """Whether a layer of the network is an attention, of torch or of another library."""
    return any("Attention" in type(module).__name__ for module in network.modules())


def low_rank_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of all low-rank updates in a network."""
    updates = (module for module in network.modules() if isinstance(module, LowRank))
    return [parameter for update in updates for parameter in update.parameters()]


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with each low-rank update added to its matrix, and with the names of a network without updates.

    Raises:
        UsageError: an update is missing, or does not have the shape of its matrix.
    """
    found = dict(state)
    mark = ".parametrizations."
    for key in [key for key in state if mark in key and key.endswith(".original")]:
        owner, _, name = key.removesuffix(".original").rpartition(mark)
        update = f"{owner}{mark}{name}.0"
        matrix, up, down = (found.pop(each, None) for each in (key, f"{update}.up", f"{update}.down"))
        are_matrices = up is not None and down is not None and up.ndim == down.ndim == 2
        # compared before: the product of two small matrices may be of any size
        if not are_matrices or up.shape[1] != len(down) or (len(up), down.shape[1]) != matrix.shape:
            raise UsageError(
                f"the weights do not fit: {printable(key)!r} has no low-rank update of the shape "
                f"{tuple(matrix.shape)}. Give an undamaged checkpoint"
            )
        found[f"{owner}.{name}"] = matrix + up @ down
    return found


def merge(network: nn.Module) -> None:
    """Adds each low-rank update to its matrix and removes it, in place; the network computes the same."""
    for module in list(network.modules()):
        for name in list(getattr(module, "parametrizations", {})):
            if any(isinstance(update, LowRank) for update in module.parametrizations[name]):
                parametrize.remove_parametrizations(module, name)
