"""Two formats that torch runs without the code of the network: `torch.export` and TorchScript."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.export import resizing

FACTS = "headstart.json"
"""The extra file of both formats that holds the facts."""


def write_exported(
    model: nn.Module, example: Tensor, dynamic: dict[int, Any], path: Path, facts: dict[str, Any]
) -> None:
    """Writes an exported program; arguments as for `onnx_file.write`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensors that share memory, as channels-last weights do
        program = torch.export.export(model, (example,), dynamic_shapes=(dynamic,))
        # the source lines of every operation would name this machine's folders
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        torch.export.save(program, path, extra_files={FACTS: json.dumps(facts)})


def load_exported(path: Path, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What runs the file. `model` is not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(path).module()


def write_scripted(
    model: nn.Module, example: Tensor, dynamic: dict[int, Any], path: Path, facts: dict[str, Any]
) -> None:
    """Writes a traced network around a scripted resize, whose sizes a trace would freeze; arguments as above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch prefers torch.export; what runs TorchScript does not know that yet
        traced = torch.jit.trace(_with_scripted_resize(model), (example,))
        torch.jit.save(traced, str(path), _extra_files={FACTS: json.dumps(facts).encode()})


def load_scripted(path: Path, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What runs the file. `model` is not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path))


def _with_scripted_resize(model: nn.Module) -> nn.Module:
    if not isinstance(model, resizing.ResizingClassifier):
        return model
    return nn.Sequential(_ScriptedResize(model.resize), model.classifier)


class _ScriptedResize(nn.Module):
    def __init__(self, resize: resizing.Resize):
        super().__init__()
        self.function = torch.jit.script(resizing.resize)
        self.settings = resize.mode, resize.bicubic, resize.size, resize.shorter_side

    def forward(self, pictures: Tensor) -> Tensor:
        return self.function(pictures.contiguous(memory_format=torch.channels_last), *self.settings)
