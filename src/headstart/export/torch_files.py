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
"""Name of the extra file that holds the description, in both formats."""


def write_exported(model: nn.Module, example: Any, axes: Any, path: Path, about: dict[str, Any]) -> None:
    """Writes an exported program; arguments as for `onnx_file.write`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about tensors that share memory, as channels-last weights do
        program = torch.export.export(model, (example,), dynamic_shapes=(dynamic_shapes(axes),))
        # removes the source lines of the operations: they contain folder names of this machine
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(about)})


def load_exported(path: Path, model: nn.Module) -> Callable[[Any], Tensor]:
    """A function that runs the file: batch -> probabilities. `model` is not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(path).module()


def write_scripted(model: nn.Module, example: Any, axes: Any, path: Path, about: dict[str, Any]) -> None:
    """Writes a scripted resize and a traced network; a traced resize would work for one size only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torch.export; programs that run TorchScript still need this
        traced = torch.jit.trace(_with_scripted_preprocessing(model), (example,))
        torch.jit.save(traced, str(path), _extra_files={EXTRA_FILE: json.dumps(about).encode()})


def load_scripted(path: Path, model: nn.Module) -> Callable[[Any], Tensor]:
    """A function that runs the file: batch -> probabilities. `model` is not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path))


def _with_scripted_preprocessing(model: nn.Module) -> nn.Module:
    if not isinstance(model, WithPreprocessing):
        return model
    return nn.Sequential(model.preprocessing.scripted(), model.classifier)
