"""Classifies pictures with torch and Pillow, without Headstart: `python use_torch.py best.pt2 photos/*.jpg`.

An example to copy, together with `read_picture.py`, into your own program. Reads the files of `python src/export.py
run=<run> format=...`: `torch_export` (.pt2), `torchscript` (.pt), or `safetensors`. For the last one, torchvision
builds the network and its last layer is replaced, so it works only for a linear head with `model.output=penultimate`.
Writes `file,class,probability,error`.

.pt2 and .pt files are programs: torch runs what is in them. From strangers, take only .safetensors or .onnx files.
"""

import csv
import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from read_picture import read_picture


def load(model: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], dict[str, Any]]:
    """A function: uint8 pictures `(batch, 3, height, width)` -> probabilities; and the description of the export."""
    extra = {"headstart.json": ""}
    if model.endswith(".pt2"):
        return torch.export.load(model, extra_files=extra).module(), json.loads(extra["headstart.json"])
    if model.endswith(".pt"):
        return torch.jit.load(model, _extra_files=extra), json.loads(extra["headstart.json"])
    return load_safetensors(model)


def load_safetensors(model: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], dict[str, Any]]:
    """The same for a file that holds only the weights: torchvision builds the network."""
    import torchvision
    from safetensors import safe_open

    with safe_open(model, framework="pt") as file:
        facts = json.loads(file.metadata()["headstart"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable
    network = torchvision.models.get_model(facts["model"]["name"], weights=None)
    body = {name.removeprefix("backbone.net."): t for name, t in state.items() if name.startswith("backbone.net.")}
    last = next(name for name, part in reversed(list(network.named_modules())) if isinstance(part, torch.nn.Linear))
    (weight,) = (t for name, t in state.items() if name.startswith("head.") and name.endswith("weight"))
    (bias,) = (t for name, t in state.items() if name.startswith("head.") and name.endswith("bias"))
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    owner, _, name = last.rpartition(".")
    setattr(network.get_submodule(owner), name, layer)
    named = OrderedDict({**body, f"{last}.weight": weight, f"{last}.bias": bias})
    named._metadata = network.state_dict()._metadata  # versions of modules, which some networks need
    network.load_state_dict(named)
    mean, std = state["backbone.mean"], state["backbone.std"]
    network.eval()

    def run(pictures: torch.Tensor) -> torch.Tensor:
        pictures = (pictures / 255 - mean) / std
        logits = network(pictures)
        if facts.get("test_time") == "with_mirror_image" or facts.get("test_time_flip"):  # its name before
            logits = (logits + network(pictures.flip(-1))) / 2
        logits = logits / facts["temperature"]
        if facts["objective"] == "Softmax":
            return logits.softmax(dim=1)
        present = logits.sigmoid()
        return present if facts["several_labels"] else torch.cat([1 - present, present], dim=1)

    return run, facts


@torch.inference_mode()
def main(model: str, *files: str) -> None:
    """Writes one line per file."""
    network, facts = load(model)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["file", "class", "probability", "error"])
    for file in files:
        try:
            picture = read_picture(file, facts["preprocess"], resize=facts["resize"] == "outside")
        except (OSError, ValueError) as error:
            rows.writerow([file, "", "", error])
            continue
        probabilities = network(torch.from_numpy(picture)[None])[0]
        best = int(probabilities.argmax())
        rows.writerow([file, facts["classes"][best], f"{probabilities[best]:.6g}", ""])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} <model.pt2, .pt or .safetensors> <picture> ...")
    main(*sys.argv[1:])
