"""Classes of pictures with torch and Pillow, without Headstart: `python use_torch.py best.pt2 photos/*.jpg`.

An example to copy, with `read_picture.py` beside it, into a program of your own. Takes what `python src/export.py
run=<run> format=...` made: `torch_export` (.pt2), `torchscript` (.pt), or `safetensors`, for which the network is built
by torchvision and its last layer replaced (a linear head on a `model.output=penultimate` alone). Writes
`file,class,probability,error`.
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
    """What makes probabilities of uint8 pictures `(batch, 3, height, width)`, and what the export says about itself."""
    extra = {"headstart.json": ""}
    if model.endswith(".pt2"):
        return torch.export.load(model, extra_files=extra).module(), json.loads(extra["headstart.json"])
    if model.endswith(".pt"):
        return torch.jit.load(model, _extra_files=extra), json.loads(extra["headstart.json"])
    return load_safetensors(model)


def load_safetensors(model: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], dict[str, Any]]:
    """The weights alone are in the file: torchvision builds the network around them."""
    import torchvision
    from safetensors import safe_open

    with safe_open(model, framework="pt") as file:
        facts = json.loads(file.metadata()["headstart"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it cannot be iterated over
    network = torchvision.models.get_model(facts["model"]["name"], weights=None)
    body = {name.removeprefix("backbone.net."): t for name, t in state.items() if name.startswith("backbone.net.")}
    last = next(name for name, part in reversed(list(network.named_modules())) if isinstance(part, torch.nn.Linear))
    (weight,) = (t for name, t in state.items() if name.startswith("head.") and name.endswith("weight"))
    (bias,) = (t for name, t in state.items() if name.startswith("head.") and name.endswith("bias"))
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    owner, _, name = last.rpartition(".")
    setattr(network.get_submodule(owner), name, layer)
    named = OrderedDict({**body, f"{last}.weight": weight, f"{last}.bias": bias})
    named._metadata = network.state_dict()._metadata  # versions of its parts, which some networks ask for
    network.load_state_dict(named)
    mean, std = state["backbone.mean"], state["backbone.std"]
    network.eval()

    def run(pictures: torch.Tensor) -> torch.Tensor:
        pictures = (pictures / 255 - mean) / std
        logits = network(pictures)
        if facts["test_time"] == "with_mirror_image":
            logits = (logits + network(pictures.flip(-1))) / 2
        logits = logits / facts["temperature"]
        if facts["objective"] == "Softmax":
            return logits.softmax(dim=1)
        present = logits.sigmoid()
        return present if facts["several_labels"] else torch.cat([1 - present, present], dim=1)

    return run, facts


@torch.inference_mode()
def main(model: str, *files: str) -> None:
    """Writes a line a file."""
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
