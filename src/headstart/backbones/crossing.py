"""Which values cross a cut through a backbone: one tensor; all others are known or can be computed again behind it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_any, tree_leaves, tree_map

from headstart.backbones.base import Backbone
from headstart.backbones.meta import on_meta

BATCHES = 2, 3
"""Samples in two passes: numbers that are equal in both do not depend on the batch."""
PLAIN = int, float, bool, str, torch.dtype, torch.device, type(None)
KNOWN, BATCH_FIRST = "known", "batch_first"
"""Notes at a step of a graph: its value without tensors, once for each batch; whether dimension 0 is the batch."""


class NoCleanCutError(ValueError):
    """A backbone cannot be cut at this place; the message says why."""


class SeveralValuesError(NoCleanCutError):
    """Several values that depend on the inputs cross a cut."""


class Crossing:
    """The values that cross a cut.

    Args:
        before: the steps before the cut.
        after: the steps behind the cut; the first one calls `block`.
        block: the first module behind the cut.

    Attributes:
        activation: the one needed tensor that depends on the inputs.

    Raises:
        NoCleanCutError: there is not exactly one such tensor.
    """

    def __init__(self, before: list[fx.Node], after: list[fx.Node], block: str):
        self.before, self.block = before, block
        needed = {used for node in after for used in node.all_input_nodes}
        self.needed = [node for node in before if node in needed]
        dependent = _dependent(before)
        crossing = [node for node in self.needed if node in dependent]
        if len(crossing) != 1:
            kind = SeveralValuesError if crossing else NoCleanCutError
            raise kind(f"{len(crossing)} values cross the cut before '{block}', but only one may: {crossing}")
        self.activation = crossing[0]

    def values_in(self, graph: fx.Graph) -> dict[fx.Node, Any]:
        """Everything that the steps behind the cut need, as values of their graph; its input is the activation."""
        activation = graph.placeholder("activation")
        activation.meta = dict(self.activation.meta)
        wanted = self._wanted()
        values: dict[fx.Node, Any] = {self.activation: activation}
        if known := [node for node in wanted if KNOWN in node.meta]:
            values |= self._known_in(graph, activation, known)
        return copy_nodes([node for node in self.before if node in wanted and node not in values], graph, values)

    def _wanted(self) -> set[fx.Node]:
        """The needed values other than the activation, and the values from which they are computed again."""
        wanted: set[fx.Node] = set()
        waiting = [node for node in self.needed if node is not self.activation]
        while waiting:
            node = waiting.pop()
            wanted.add(node)
            waiting += [] if KNOWN in node.meta else [used for used in node.all_input_nodes if used not in wanted]
        return wanted

    def _known_in(self, graph: fx.Graph, activation: fx.Node, nodes: list[fx.Node]) -> dict[fx.Node, Any]:
        """Values without tensors: the same numbers, but the size of the batch is read from the activation."""
        size = None
        if any(one != other for node in nodes for one, other in zip(*map(tree_leaves, node.meta[KNOWN]), strict=True)):
            if not activation.meta.get(BATCH_FIRST):
                raise NoCleanCutError(f"the size of the batch is not known behind the cut before '{self.block}'")
            size = graph.call_method("size", (activation, 0))
            size.meta[KNOWN] = BATCHES
        return {node: tree_map(lambda one, other: one if one == other else size, *node.meta[KNOWN]) for node in nodes}


def copy_nodes(nodes: Iterable[fx.Node], graph: fx.Graph, copies: dict[fx.Node, Any]) -> dict[fx.Node, Any]:
    """`copies`, with a copy in `graph` of each node."""
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return copies


def _dependent(nodes: list[fx.Node]) -> set[fx.Node]:
    """The steps that depend on the inputs."""
    dependent: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or (KNOWN not in node.meta and dependent.intersection(node.all_input_nodes)):
            dependent.add(node)
    return dependent


def note_known_values(graph: fx.Graph, backbone: Backbone) -> bool:
    """Notes at the steps of a pass which values are known, such as heights and widths of activations.

    For this, two small random batches pass through the backbone.

    Returns:
        False if nothing is known: the recorded steps cannot run alone, or inputs have different lengths.
    """
    if not hasattr(backbone, "preprocess") or backbone.variable_length:
        return False
    device = next(backbone.parameters()).device
    try:
        with _trial(backbone):
            passes = [_values_in_pass(graph, backbone, _example(backbone, batch, device)) for batch in BATCHES]
    except Exception:  # the code of the backbone may raise anything, such as on lists that torch.fx made immutable
        return False
    for node in graph.nodes:
        _note(node, *(values[node] for values in passes))
    return True


_tuples: WeakKeyDictionary[Backbone, frozenset[str]] = WeakKeyDictionary()


def blocks_with_tuples(backbone: Backbone) -> frozenset[str]:
    """The blocks whose input is not one tensor but a tuple or list, found in a pass of one random sample."""
    if backbone not in _tuples:
        compiled = any(module._compiled_call_impl is not None for module in backbone.modules())
        runs = [] if compiled or not hasattr(backbone, "preprocess") else [_pass_on_meta, _real_pass]
        found: set[str] = set()
        for run in runs:
            try:
                with _trial(backbone), _inputs_watched(backbone, found):
                    run(backbone)
                break
            except Exception:  # some code does not run on the meta device, some needs more than one sample
                continue
        _tuples[backbone] = frozenset(found)
    return _tuples[backbone]


@contextmanager
def _inputs_watched(backbone: Backbone, found: set[str]) -> Iterator[None]:
    """Adds to `found` the names of the blocks that are called with something else than a tensor."""

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, arguments: tuple) -> None:
            if arguments and not isinstance(arguments[0], Tensor):
                found.add(name)

        return backbone.get_submodule(name).register_forward_pre_hook(look)

    handles = [watch(block) for block in backbone.blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pass_on_meta(backbone: Backbone) -> None:
    with on_meta(backbone):
        backbone(_example(backbone, 1, torch.device("meta")))


def _real_pass(backbone: Backbone) -> None:
    backbone(_example(backbone, 1, next(backbone.parameters()).device))


@contextmanager
def _trial(backbone: Backbone) -> Iterator[None]:
    """In eval mode and without gradients; modes and random numbers are afterwards as before."""
    modes = {module: module.training for module in backbone.modules()}
    try:
        with torch.random.fork_rng(), torch.no_grad():
            backbone.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _example(backbone: Backbone, number: int, device: torch.device) -> Any:
    return tree_map(lambda leaf: leaf.to(device), backbone.preprocess.example(number))


def _values_in_pass(graph: fx.Graph, backbone: Backbone, inputs: Any) -> dict[fx.Node, Any]:
    """The value of each step; only the shape of a tensor."""
    found: dict[fx.Node, Any] = {}

    class Interpreter(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            found[n] = tuple(value) if isinstance(value, torch.Size) else value
            if isinstance(value, Tensor):
                found[n] = torch.empty(value.shape, device="meta")
            return value

    Interpreter(backbone, graph=graph).run(inputs)
    return found


def _note(node: fx.Node, one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        node.meta[BATCH_FIRST] = (*one.shape[:1], *other.shape[:1]) == BATCHES
        return
    if tree_any(lambda leaf: not isinstance(leaf, PLAIN), (one, other)):
        return
    leaves = list(zip(tree_leaves(one), tree_leaves(other), strict=True))
    if all(pair in (BATCHES, (pair[0], pair[0])) for pair in leaves):
        node.meta[KNOWN] = one, other
