"""Two formats that torch runs without the code of the network: `torch.export` and TorchScript."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.export.network import WithPreprocessing, dynamic_shapes

EXTRA_FILE = "headstart.json"
"""The extra file of both formats that holds the description."""


def write_exported(model: nn.Module, example: Any, axes: Any, path: Path, about: dict[str, Any]) -> None:
    """Writes an exported program; arguments as for `onnx_file.write`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensors that share memory, as channels-last weights do
        program = torch.export.export(model, (example,), dynamic_shapes=(dynamic_shapes(axes),))
        # the source lines of every operation would name this machine's folders
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(about)})


def load_exported(path: Path, model: nn.Module) -> Callable[[Any], Tensor]:
    """What runs the file. `model` is not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(path).module()


def write_scripted(model: nn.Module, example: Any, axes: Any, path: Path, about: dict[str, Any]) -> None:
    """Writes a traced network behind a scripted resize, whose sizes a trace would freeze; arguments as above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch prefers torch.export; what runs TorchScript does not know that yet
        traced = torch.jit.trace(_with_scripted_preprocessing(model), (example,))
        torch.jit.save(traced, str(path), _extra_files={EXTRA_FILE: json.dumps(about).encode()})


def load_scripted(path: Path, model: nn.Module) -> Callable[[Any], Tensor]:
    """What runs the file. `model` is not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path))


def _with_scripted_preprocessing(model: nn.Module) -> nn.Module:
    if not isinstance(model, WithPreprocessing):
        return model
    return nn.Sequential(model.preprocessing.scripted(), model.classifier)
