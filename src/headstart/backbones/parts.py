"""Splits a backbone into parts, so that activations of frozen layers are computed only once; copies for inference."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from headstart.backbones.base import Backbone, LayerGroup
from headstart.backbones.crossing import (
    Crossing,
    NoCleanCutError,
    SeveralValuesError,
    blocks_with_tuples,
    copy_nodes,
    note_known_values,
)

Recording = tuple[fx.Graph, dict[str, Tensor]]
"""The steps of one pass, and by name the tensors that were computed while they were recorded."""
CONVOLUTIONS = {nn.BatchNorm1d: nn.Conv1d, nn.BatchNorm2d: nn.Conv2d, nn.BatchNorm3d: nn.Conv3d}


def in_two_parts(backbone: Backbone, groups: int) -> tuple[nn.Module, nn.Module]:
    """The first `groups` layer groups, and the rest of the backbone: `rest(prefix(inputs))` equals `backbone(inputs)`.

    Results and gradients are equal bit for bit. The parts consist of the modules and parameters of the backbone itself:
    training `rest` trains the backbone, and train and eval mode are set on the backbone as usual. Only modules that
    contain the cut are replaced, by a recorded graph of their code; compilation is lost there.

    One tensor crosses the cut. `rest` computes again what else it needs and what does not depend on the inputs, such as
    a table of positions. For this it may use tensors of the first groups, which are frozen while `rest` is used.

    Call this when the backbone is on its device and none of its modules will be replaced: a part keeps its modules, and
    buffers of modules around the cut (mean, std) do not follow `backbone.to(...)`.

    Returns:
        `prefix`: a batch of inputs -> activation, the one input tensor of the first block behind the cut.
        `rest`: activation -> features `(batch, num_features)`; the identity if `groups` is the number of all groups.
        Keep the memory format of the activation: in another one, convolutions round differently.

    Raises:
        NoCleanCutError: more than one tensor crosses the cut, the first groups need a tensor of later ones, the code
            around the cut cannot be recorded, or it has hooks.
        ValueError: `groups` is not in 1..len(backbone.layer_groups()).
    """
    prefix, rest = in_parts(backbone, [groups])
    return prefix, rest


def in_parts(backbone: Backbone, counts: Sequence[int]) -> list[nn.Module]:
    """The backbone, cut at several places; see `in_two_parts`, which cuts once.

    Args:
        backbone: on its device, with its final modules.
        counts: numbers of layer groups before each cut, ascending.

    Returns:
        the parts, one more than cuts; called one after the other, they compute `backbone`.

    Raises:
        NoCleanCutError: the backbone cannot be cut at one of these places, or not at all of them together.
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
    names = ["Prefix", *["Between"] * (len(blocks) - 1), "Rest"]
    with _recorded(backbone, blocks) as graph:
        try:
            graphs = _cut_at_each(blocks, graph)
        except SeveralValuesError:
            if not note_known_values(graph, backbone):
                raise
            graphs = _cut_at_each(blocks, graph)
        parts = [fx.GraphModule(backbone, graph, name) for graph, name in zip(graphs, names, strict=True)]
    for place, (block, count) in enumerate(zip(blocks, counts, strict=True), start=1):
        if block in blocks_with_tuples(backbone):
            raise NoCleanCutError(f"several values, as one tuple, cross the cut before '{block}', but only one may")
        for part in parts[:place]:
            _check_owners(part, layer_groups[count:], block)
    return parts


class InferenceCopy(nn.Module):
    """A faster copy of a network, only for inference.

    Each BatchNorm that directly follows a convolution is folded into it. The output has the dtype of the parameters and
    no gradient.

    Args:
        network: a prefix, a backbone or any other module with one input. Its current values are copied.
        bf16: compute in bfloat16 where autocast allows it. Features then differ by some hundredths. CPUs without
            bfloat16 instructions (`avx512_bf16`, `amx_bf16`) become slower.
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
        """Stays in eval mode, even as part of a network in train mode."""
        return self

    # not inference_mode: it is not measurably faster, and its tensors cannot be used in a training step
    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """The output of the copied network, in eval mode, for a batch of inputs."""
        parameter = next(self.network.parameters())
        with torch.autocast(parameter.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(inputs).to(parameter.dtype)


class _Tracer(fx.Tracer):
    """Records the code of a module as a graph; with `blocks`, only modules around them are recorded inside."""

    def __init__(self, blocks: Sequence[str] = ()):
        super().__init__()
        self.blocks = blocks

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one step of the graph, which keeps its own mode, random numbers and hooks."""
        if not self.blocks:
            return super().is_leaf_module(m, module_qualified_name)
        return not _is_around(module_qualified_name, self.blocks)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Calls the code without in-place compilation, which does not accept the placeholders of torch.fx."""
        return super().call_module(m, m.forward, args, kwargs)


def _is_around(name: str, blocks: Sequence[str]) -> bool:
    """Whether the module of this name contains one of the blocks; the backbone has an empty name."""
    return not name or any(block.startswith(f"{name}.") for block in blocks)


@contextmanager
def _recorded(backbone: Backbone, blocks: Sequence[str]) -> Iterator[fx.Graph]:
    """The steps of one pass; they must be the same with the modules around the blocks in train and in eval mode.

    Within this context, the backbone has the tensors that were computed while its code was recorded, such as a table of
    positions, as attributes.
    """
    around = [module for name, module in backbone.named_modules() if _is_around(name, blocks)]
    cuts = " and ".join(f"'{block}'" for block in blocks)
    if any(module._forward_hooks or module._forward_pre_hooks for module in around):
        raise NoCleanCutError(f"there are hooks around {cuts}: they would not run, and may change the inputs")
    modes, before = [module.training for module in around], set(vars(backbone))
    recordings = []
    try:
        for mode in (True, False):
            for module in around:
                module.training = mode
            _remove_attributes(backbone, before)
            graph = _trace(backbone, blocks, cuts)
            recordings.append((graph, {name: vars(backbone)[name] for name in vars(backbone).keys() - before}))
    finally:
        for module, mode in zip(around, modes, strict=True):
            module.training = mode
    try:
        _check_alike(*recordings, cuts)
        yield graph
    finally:
        _remove_attributes(backbone, before)


def _trace(backbone: Backbone, blocks: Sequence[str], cuts: str) -> fx.Graph:
    try:
        return _Tracer(blocks).trace(backbone)
    except Exception as error:  # the code of the backbone may raise anything on a placeholder
        reason = (str(error).splitlines() or [""])[0]
        raise NoCleanCutError(f"the code around {cuts} cannot be recorded: {type(error).__name__}: {reason}") from error


def _remove_attributes(backbone: Backbone, all_but: set[str]) -> None:
    for name in vars(backbone).keys() - all_but:
        delattr(backbone, name)


def _check_alike(train: Recording, evaluation: Recording, cuts: str) -> None:
    (graph, constants), (other_graph, others) = train, evaluation
    same = all(name in others and _equal(tensor, others[name]) for name, tensor in constants.items())
    if str(graph) != str(other_graph) or not same:
        raise NoCleanCutError(f"the code around {cuts} does one thing in train mode and another in eval mode")


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and (one.is_meta or torch.equal(one, other))


def _cut_at_each(blocks: Sequence[str], graph: fx.Graph) -> list[fx.Graph]:
    graphs, rest = [], graph
    for block in blocks:
        before, rest = _cut_at(block, rest)
        graphs.append(before)
    return [*graphs, rest]


def _cut_at(block: str, graph: fx.Graph) -> tuple[fx.Graph, fx.Graph]:
    """The steps before the call of `block`, and the steps from this call on."""
    nodes = list(graph.nodes)
    calls = [i for i, node in enumerate(nodes) if node.op == "call_module" and node.target == block]
    if len(calls) != 1:
        raise NoCleanCutError(f"'{block}' is called {len(calls)} times in one pass, not once")
    before, after = nodes[: calls[0]], nodes[calls[0] :]
    crossing = Crossing(before, after, block)
    prefix, rest = fx.Graph(), fx.Graph()
    prefix.output(copy_nodes(before, prefix, {})[crossing.activation])
    copy_nodes(after, rest, crossing.values_in(rest))
    return prefix, rest


def _check_owners(part: nn.Module, later: list[LayerGroup], block: str) -> None:
    """Raises NoCleanCutError if a part before the cut uses tensors of groups behind it.

    Otherwise freezing and fingerprints would miss these tensors.
    """
    theirs = {
        tensor
        for group in later
        for module in group.modules.values()
        for tensor in chain(module.parameters(recurse=False), module.buffers(recurse=False))
    }
    for name, tensor in chain(part.named_parameters(), part.named_buffers()):
        if tensor in theirs:
            raise NoCleanCutError(f"'{name}' is used before '{block}', but belongs to a group behind this place")


def _fold_batch_norm(network: nn.Module) -> None:
    """Folds each BatchNorm in eval mode into its convolution, in place, if nothing else uses the output of that."""
    for conv, norm in list(_conv_norm_pairs(network)):
        fused = fuse_conv_bn_eval(network.get_submodule(conv), network.get_submodule(norm))
        network.set_submodule(conv, fused.requires_grad_(False))
        network.set_submodule(norm, nn.Identity())


def _conv_norm_pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of BatchNorms that can be folded into them; none if the code cannot be recorded."""
    try:
        nodes = list(_Tracer().trace(network).nodes)
    except Exception:  # the code of the network may raise anything on a placeholder
        return
    targets = [node.target for node in nodes]
    for node in nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = network.get_submodule(before.target), network.get_submodule(node.target)
        called_once = targets.count(before.target) == targets.count(node.target) == 1
        # subclasses, such as parametrized modules, may compute something else
        if called_once and type(conv) is CONVOLUTIONS.get(type(norm)) and norm.running_mean is not None:
            yield before.target, node.target
