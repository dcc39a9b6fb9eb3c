"""The weights of timm's networks: where they are, and how they are loaded."""

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.backbones.base import Backbone
from headstart.backbones.hub import from_hub
from headstart.backbones.low_rank import merged
from headstart.backbones.weights import StateDict, fetch, load_state_dict_file, load_strictly, read_weights
from headstart.errors import UsageError

log = logging.getLogger(__name__)
FILES = "model.safetensors", "pytorch_model.bin"
POSITIONS = "pos", "rope", "rel_"
"""Parts of the names of tables that depend on the size of the pictures."""
Convert = Callable[..., dict[str, Any]]


def published_file(name: str, settings: Any) -> Path:
    """The file with the published weights of a network, downloaded once.

    Args:
        name: of the network and the weights.
        settings: timm's `PretrainedCfg`.

    Raises:
        UsageError: there are no published weights, or they cannot be downloaded.
    """
    instead = "model.weights=<path to a file>, or model.weights=null for random weights"
    if settings.hf_hub_id:
        for file in (settings.hf_hub_filename,) if settings.hf_hub_filename else FILES:
            path = from_hub(
                settings.hf_hub_id,
                file,
                needs='timm needs the package huggingface_hub: pip install -e ".[timm]"',
                unknown=f"the Hugging Face hub has no public {settings.hf_hub_id} (if you may use it, set HF_TOKEN). "
                f"Type {instead}",
                instead=instead,
            )
            if path is not None:
                return path
        raise UsageError(f"{settings.hf_hub_id} on the Hugging Face hub holds no {' or '.join(FILES)}: type {instead}")
    if settings.url and not settings.custom_load:
        return fetch(settings.url)
    raise UsageError(f"timm has no weights for {name}: type {instead}")


def load(backbone: Backbone, source: Path, is_published: bool, convert: Convert | None, cut_off: set[str]) -> None:
    """Loads all weights of `backbone.net`, and mean and std if the source is an earlier run.

    Args:
        backbone: its parameters may be on the meta device.
        source: a file with timm's names, or with names that timm converts; a checkpoint or the folder of a run.
        is_published: the file is one that timm names.
        convert: timm's function that converts a file for this kind of network.
        cut_off: prefixes of names that only a network with classifier has.

    Raises:
        UsageError: as `read_weights` and `load_strictly`; or a tensor would be resized that is no table of positions.
    """
    state = load_state_dict_file(source) if is_published else read_weights(source)
    if any(key.startswith("net.") for key in state):  # of an earlier run
        for key in ("mean", "std"):
            if key in state:
                getattr(backbone, key).copy_(state.pop(key))
        state = StateDict({key.removeprefix("net."): tensor for key, tensor in merged(state).items()})
    load_strictly(backbone.net, _converted(state, backbone.net, convert, str(source)), str(source), cut_off)


def _converted(state: StateDict, net: nn.Module, convert: Convert | None, source: str) -> StateDict:
    if convert is None:
        return state
    # tables are resampled in single precision
    state = StateDict({k: t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for k, t in state.items()})
    sizes = {key: (tuple(tensor.shape), tensor.numel()) for key, tensor in state.items()}
    try:
        # timm has functions with and without the network
        takes_network = len(inspect.signature(convert).parameters) > 1
        found = convert(dict(state), net) if takes_network else convert(dict(state))
    except (RuntimeError, ValueError, KeyError, AttributeError, AssertionError, TypeError) as error:
        raise UsageError(f"the weights '{source}' do not fit this network: {error}") from error
    resized = [key for key, tensor in found.items() if key in sizes and sizes[key][1] != tensor.numel()]
    if wrong := [key for key in resized if not any(part in key for part in POSITIONS)]:
        raise UsageError(
            f"the weights '{source}' do not fit this network: '{wrong[0]}' has the shape {sizes[wrong[0]][0]}, not "
            f"{tuple(found[wrong[0]].shape)}. Give the model that the weights were made with"
        )
    if resized:
        log.info(
            "the weights are for pictures of another size: timm resamples %s from %s to %s%s",
            *(resized[0], sizes[resized[0]][0], tuple(found[resized[0]].shape)),
            f" (and {len(resized) - 1} more)" if len(resized) > 1 else "",
        )
    return StateDict(found)


_LOCK = threading.RLock()


@contextmanager
def noting_conversion(found: list[Convert]) -> Iterator[None]:
    """Within this context, timm loads no weights into its networks; its function to convert a file goes into `found`.

    timm gives this function only to its own loader, which skips tensors that do not fit and only logs it. Other threads
    wait before they build a network of timm through Headstart.
    """
    from timm.models import _builder

    def note(*_: Any, filter_fn: Convert | None = None, **__: Any) -> None:
        found.extend([filter_fn] if filter_fn else [])

    with _LOCK:
        loader, _builder.load_pretrained = _builder.load_pretrained, note
        try:
            yield
        finally:
            _builder.load_pretrained = loader
