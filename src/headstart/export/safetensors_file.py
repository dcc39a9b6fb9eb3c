"""Safetensors: the weights alone, readable by anything; the network must be built by whoever loads them."""

import copy
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

KEY = "headstart"
"""The key of the description in the file's metadata, as JSON."""


def write(model: nn.Module, example: Any, axes: Any, path: Path, about: dict[str, Any]) -> None:
    """Writes the parameters and buffers under their names in the network; there is no example needed.

    `backbone.net.` precedes the names that torchvision gives its own networks.
    """
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, metadata={KEY: json.dumps(about), "format": "pt"})


def load(path: Path, model: nn.Module) -> Callable[[Any], Tensor]:
    """A network built like `model`, with nothing of it but what the file holds."""
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in (*fresh.parameters(), *fresh.buffers()):
            tensor.zero_()
    state = OrderedDict(load_file(path))
    state._metadata = fresh.state_dict()._metadata  # MNASNet asks for a version, which such a file cannot tell
    fresh.load_state_dict(state)
    return fresh
