"""Safetensors files, which hold only the weights: the program that loads them has to build the network."""

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
    """Writes the parameters and buffers under their names in the network; `example` and `axes` are not used.

    Networks of torchvision keep their names, with the prefix `backbone.net.`.
    """
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, metadata={KEY: json.dumps(about), "format": "pt"})


def load(path: Path, model: nn.Module) -> Callable[[Any], Tensor]:
    """A network with the architecture of `model` and the weights of the file."""
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in (*fresh.parameters(), *fresh.buffers()):
            tensor.zero_()
    state = OrderedDict(load_file(path))
    state._metadata = fresh.state_dict()._metadata  # MNASNet needs a version, which the file cannot store
    fresh.load_state_dict(state)
    return fresh
