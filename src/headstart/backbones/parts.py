"""A backbone in parts, so that what a frozen prefix computes is computed once, and a faster copy of a prefix."""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from headstart.backbones.base import Backbone, LayerGroup

CONVOLUTIONS = {nn.BatchNorm1d: nn.Conv1d, nn.BatchNorm2d: nn.Conv2d, nn.BatchNorm3d: nn.Conv3d}


class NoCleanCutError(ValueError):
    """A backbone cannot be run in parts that meet at this place; the message says why."""


def in_two_parts(backbone: Backbone, groups: int) -> tuple[nn.Module, nn.Module]:
    """The first `groups` layer groups and all that follows them: `rest(prefix(inputs))` is `backbone(inputs)`.

    To the bit, and so are the gradients. The parts are made of the backbone's own modules and parameters: what trains
    `rest` trains the backbone, and whether a module is in train or eval mode is decided where it always is. Only
    modules that contain the cut are replaced by a record of their code, without what compiled it.

    Make the parts when the backbone is on its device and its modules are its final ones: a part goes on using the
    modules it was made of, and buffers of the modules around the cut (mean, std) do not follow `backbone.to(...)`.

    Returns:
        `prefix`: a batch of inputs -> activation, the one tensor that the first block behind the cut is given.
        `rest`: activation -> features `(batch, num_features)`; does nothing when `groups` are all there are. It takes
        the activation in the memory format `prefix` gave it: in another, convolutions round differently.

    Raises:
        NoCleanCutError: more than one tensor crosses the cut, or the code around it cannot be recorded or has hooks.
        ValueError: `groups` is not in 1..len(backbone.layer_groups()).
    """
    prefix, rest = in_parts(backbone, [groups])
    return prefix, rest


def in_parts(backbone: Backbone, counts: Sequence[int]) -> list[nn.Module]:
    """The backbone cut behind each of these numbers of layer groups; see `in_two_parts`, which cuts once.

    Args:
        backbone: on its device, with its final modules.
        counts: ascending.

    Returns:
        one part more than there are counts: one after the other they are `backbone`.

    Raises:
        NoCleanCutError: it cannot be cut at one of these places, or at each but not at all of them.
        ValueError: `counts` do not ascend within 1..len(backbone.layer_groups()).
    """
    layer_groups = backbone.layer_groups()
    if sorted({*counts}) != list(counts) or not all(0 < count <= len(layer_groups) for count in counts):
        given = ", ".join(map(str, counts))
        raise ValueError(f"groups={given}: the backbone has {len(layer_groups)} layer groups, the prefix at least one")
    inner = [count for count in counts if count < len(layer_groups)]
    parts = _cut_behind(backbone, layer_groups, inner) if inner else [backbone]
    return parts if inner == list(counts) else [*parts, nn.Identity()]


def _cut_behind(backbone: Backbone, layer_groups: list[LayerGroup], counts: list[int]) -> list[nn.Module]:
    blocks = [next(iter(layer_groups[count].modules)) for count in counts]
    graphs, after = [], _record(backbone, blocks)
    for block in blocks:
        before, after = _cut_at(block, after)
        graphs.append(before)
    names = ["Prefix", *["Between"] * (len(blocks) - 1), "Rest"]
    parts = [fx.GraphModule(backbone, graph, name) for graph, name in zip([*graphs, after], names, strict=True)]
    for place, (block, count) in enumerate(zip(blocks, counts, strict=True), start=1):
        for part in parts[:place]:
            _check_owners(part, layer_groups[count:], block)
        for part in parts[place:]:
            _check_owners(part, layer_groups[:count], block)
    return parts


class InferenceCopy(nn.Module):
    """A copy of a network that computes the same, faster, and cannot be trained.

    Each BatchNorm that directly follows a convolution is folded into it. What comes out has the type of the network's
    parameters, and no gradient.

    Args:
        network: a prefix, a backbone or any other module that takes one input. Its values at this moment are copied.
        bf16: compute in bfloat16 where autocast thinks it safe. Features then differ by some hundredths, and CPUs
            without instructions for it (`avx512_bf16`, `amx_bf16`) are slower, not faster.
    """

    def __init__(self, network: nn.Module, bf16: bool = False):
        super().__init__()
        self.bf16 = bf16
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        _fold_batch_norm(self.network)
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
        self.training = False

    def train(self, mode: bool = True) -> "InferenceCopy":
        """Stays in eval mode, even as part of something that trains."""
        return self

    # not inference_mode: it saves nothing measurable, and its tensors can never again be part of a training step
    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """What the copied network in eval mode returns for a batch of inputs."""
        parameter = next(self.network.parameters())
        with torch.autocast(parameter.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(inputs).to(parameter.dtype)


class _Tracer(fx.Tracer):
    """Records what a module's code does; given blocks, only that of the modules around them: all others are steps."""

    def __init__(self, blocks: Sequence[str] = ()):
        super().__init__()
        self.blocks = blocks

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one step, which keeps its train and eval mode, randomness and hooks its own business."""
        if not self.blocks:
            return super().is_leaf_module(m, module_qualified_name)
        return not _is_around(module_qualified_name, self.blocks)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Goes past in-place compilation, which cannot deal with a stand-in for a tensor."""
        return super().call_module(m, m.forward, args, kwargs)


def _is_around(name: str, blocks: Sequence[str]) -> bool:
    """Whether the module of this name contains one of the blocks; that of no name contains all."""
    return not name or any(block.startswith(f"{name}.") for block in blocks)


def _record(backbone: Backbone, blocks: Sequence[str]) -> fx.Graph:
    """The steps of one pass, with the modules around the blocks in train mode as in eval mode."""
    around = [module for name, module in backbone.named_modules() if _is_around(name, blocks)]
    told = " and ".join(f"'{block}'" for block in blocks)
    if any(module._forward_hooks or module._forward_pre_hooks for module in around):
        raise NoCleanCutError(f"there are hooks around {told}, which would not run, and may change what it is given")
    modes = [module.training for module in around]
    graphs = []
    try:
        for mode in (True, False):
            for module in around:
                module.training = mode
            graphs.append(_Tracer(blocks).trace(backbone))
    except Exception as error:  # the backbone's own code, on a stand-in for a tensor, may raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise NoCleanCutError(f"the code around {told} cannot be recorded: {type(error).__name__}: {reason}") from error
    finally:
        for module, mode in zip(around, modes, strict=True):
            module.training = mode
    if str(graphs[0]) != str(graphs[1]):
        raise NoCleanCutError(f"the code around {told} does one thing in train mode and another in eval mode")
    return graphs[0]


def _cut_at(block: str, graph: fx.Graph) -> tuple[fx.Graph, fx.Graph]:
    """The steps before the call of `block` and those from it on."""
    nodes = list(graph.nodes)
    calls = [i for i, node in enumerate(nodes) if node.op == "call_module" and node.target == block]
    if len(calls) != 1:
        raise NoCleanCutError(f"'{block}' is called {len(calls)} times in one pass, not once")
    before, after = nodes[: calls[0]], nodes[calls[0] :]
    needed = {used for node in after for used in node.all_input_nodes}
    crossing = [node for node in before if node in needed]
    if len(crossing) != 1:
        raise NoCleanCutError(f"not one value crosses the cut before '{block}' but {len(crossing)}: {crossing}")
    prefix, rest = fx.Graph(), fx.Graph()
    prefix.output(_copy(before, prefix, {})[crossing[0]])
    _copy(after, rest, {crossing[0]: rest.placeholder("activation")})
    return prefix, rest


def _copy(nodes: list[fx.Node], graph: fx.Graph, copies: dict[fx.Node, fx.Node]) -> dict[fx.Node, fx.Node]:
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return copies


def _check_owners(part: nn.Module, foreign: list[LayerGroup], block: str) -> None:
    """What freezing and fingerprints rely on: a part uses no tensor of the layer groups on the other side."""
    theirs = {
        tensor
        for group in foreign
        for module in group.modules.values()
        for tensor in chain(module.parameters(recurse=False), module.buffers(recurse=False))
    }
    for name, tensor in chain(part.named_parameters(), part.named_buffers()):
        if tensor in theirs:
            raise NoCleanCutError(f"'{name}' is used on one side of the cut before '{block}' and belongs to the other")


def _fold_batch_norm(network: nn.Module) -> None:
    """Folds, in place, each BatchNorm in eval mode into the convolution whose output it alone sees."""
    for conv, norm in list(_conv_norm_pairs(network)):
        fused = fuse_conv_bn_eval(network.get_submodule(conv), network.get_submodule(norm))
        network.set_submodule(conv, fused.requires_grad_(False))
        network.set_submodule(norm, nn.Identity())


def _conv_norm_pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the BatchNorms that can be folded into them; none if the code cannot be recorded."""
    try:
        nodes = list(_Tracer().trace(network).nodes)
    except Exception:  # the network's own code, on a stand-in for a tensor, may raise anything
        return
    targets = [node.target for node in nodes]
    for node in nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = network.get_submodule(before.target), network.get_submodule(node.target)
        called_once = targets.count(before.target) == targets.count(node.target) == 1
        # subclasses, such as parametrised ones, may compute something else
        if called_once and type(conv) is CONVOLUTIONS.get(type(norm)) and norm.running_mean is not None:
            yield before.target, node.target
