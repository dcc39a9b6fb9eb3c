"""Backbones from all classifiers of torchvision, by name."""

import math
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from headstart.backbones.base import Backbone
from headstart.backbones.low_rank import add_low_rank, merged
from headstart.backbones.meta import bad_size, count_features, parameters_on_meta
from headstart.backbones.torchvision_families import Family, cut, find_family
from headstart.backbones.weights import (
    StateDict,
    fetch,
    load_state_dict_file,
    load_strictly,
    local_path,
    looks_like_path,
    read_weights,
)
from headstart.errors import UsageError, nearest
from headstart.inputs.images.preprocess import ImagePreprocess

POSITIONS = "encoder.pos_embedding"  # of a ViT, (1, 1 + grid * grid, width); the first is for the class token


class TorchvisionBackbone(Backbone):
    """A classifier of `torchvision.models`: pictures `(batch, 3, height, width)` -> `(batch, num_features)`.

    Args:
        name: one of `torchvision.models.list_models(module=torchvision.models)`.
        weights: name of published weights (`DEFAULT`: the best), downloaded once; the path of a state dict (.pth, .pt,
            .safetensors); a checkpoint (.ckpt) or the folder of an earlier run, to start from its backbone; None for
            random weights.
        image_size: side of the square input in pixels; None for the size that the weights were trained with. For
            another size, the position embeddings of a ViT are interpolated.
        output: `penultimate` (output of the layer before the last one), `pooled` (mean of the last feature map over its
            pixels) or `flattened` (that map as one vector).
        resize_mode: how a picture becomes square: `crop`, `squash` or `letterbox`.
        lora_rank: rank of the low-rank updates of a transformer, for `finetuning=lora`; None: no updates.

    Raises:
        UsageError: an unknown name, weights, size or output; weights that cannot be read or do not fit. All checks that
            need no download come before the download.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = "DEFAULT",
        image_size: int | None = None,
        output: str = "penultimate",
        resize_mode: str = "crop",
        lora_rank: int | None = None,
    ):
        _check_name(name)
        family = find_family(name)
        source = _find_weights(name, weights)
        _check_output(name, output, family, source)
        state, constants = _read_local(source)
        entry = _preset_entry(name, source)
        super().__init__(*_mean_and_std(entry, family, pretrained=source is not None))
        self.preprocess = _preprocess(
            entry, _size_of_positions(name, state) if image_size is None else image_size, resize_mode
        )
        self.pretrained = source is not None
        net = _build(name, family, self.preprocess.image_size, on_meta=self.pretrained)
        blocks, uncut = family.blocks(net), set(net.state_dict())
        self.net = cut(net, family, output)
        self.blocks = [f"net.{block}" for block in blocks if list(self.net.get_submodule(block).parameters())]
        self.num_features = count_features(self, name)
        if isinstance(source, Enum):
            state = load_state_dict_file(fetch(source.url))
        if state is not None:
            cut_off = {key.rpartition(".")[0] + "." for key in uncut - set(self.net.state_dict())}
            self._load(state, family, str(weights), ignore={*cut_off, *family.ignore})
            for key, tensor in constants.items():
                getattr(self, key).copy_(tensor)
        if lora_rank is not None:
            add_low_rank(self.net, lora_rank)
        self.to(memory_format=torch.channels_last)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures, uint8 or float in [0, 1] -> features `(batch, num_features)`."""
        return self.net(self.normalise(inputs))

    def _load(self, state: StateDict, family: Family, source: str, ignore: set[str]) -> None:
        for old, new in family.renames:
            for key in [key for key in state if old in key]:
                state[key.replace(old, new)] = state.pop(key)
        if POSITIONS in state:
            state = interpolate_embeddings(self.net.image_size, self.net.patch_size, state)
        load_strictly(self.net, state, source, ignore)


def _build(name: str, family: Family, size: int, on_meta: bool) -> nn.Module:
    arguments: dict[str, Any] = {family.size_argument: size} if family.size_argument else {}
    if family.own_normalisation:  # both have auxiliary heads, and warn if init_weights is not given
        arguments |= {"aux_logits": False, "init_weights": True}
    if family.size_argument == "input_size":
        arguments["input_size"] = (size, size)
    try:
        with parameters_on_meta() if on_meta else nullcontext():
            return torchvision.models.get_model(name, weights=None, **arguments)
    except (AssertionError, ValueError) as error:
        raise bad_size(name, size, error) from error


def _check_name(name: str) -> None:
    models = torchvision.models.list_models(module=torchvision.models)
    if name not in models:
        hint = nearest(str(name), models) or "."
        raise UsageError(f"torchvision has no classifier '{name}'{hint} Type model.name=<one of {', '.join(models)}>")


def _check_output(name: str, output: str, family: Family, source: Enum | Path | None) -> None:
    if output not in family.outputs:
        hint = nearest(str(output), family.outputs) or "."
        raise UsageError(
            f"{name} has no output '{output}'{hint} Type model.output=<one of {', '.join(family.outputs)}>"
        )
    if output == "penultimate" and isinstance(source, Enum) and source.meta["categories"] is None:
        raise UsageError(
            f"{source} has no values for the classifier. Type model.output=pooled or model.output=flattened"
        )


def _find_weights(name: str, weights: str | Path | None) -> Enum | Path | None:
    """`weights` as an entry of torchvision's enum, as a path, or None.

    Raises:
        UsageError: it is neither.
    """
    if weights is None:
        return None
    entries = torchvision.models.get_model_weights(name)
    key = str(weights).removeprefix(f"{entries.__name__}.")
    if key in entries.__members__:
        return entries[key]
    if looks_like_path(weights):
        return local_path(weights)
    allowed = list(entries.__members__)
    hint = nearest(key, allowed) or "."
    raise UsageError(
        f"{name} has no weights '{weights}'{hint} Type model.weights=<one of {', '.join(allowed)}>, the path of a file "
        "or of an earlier run, or null for random weights."
    )


def _read_local(source: Enum | Path | None) -> tuple[StateDict | None, StateDict]:
    """Tensors with torchvision's names, and mean and std if the file is from a Headstart backbone; None: no file."""
    state = read_weights(source) if isinstance(source, Path) else None
    if state is None or not any(key.startswith("net.") for key in state):
        return state, StateDict()
    constants = StateDict({key: state.pop(key) for key in ("mean", "std") if key in state})
    return StateDict({key.removeprefix("net."): tensor for key, tensor in merged(state).items()}), constants


def _preset_entry(name: str, source: Enum | Path | None) -> Enum:
    """The entry of torchvision's weights that defines the preprocessing: the given one if known, else the oldest."""
    entries = torchvision.models.get_model_weights(name)
    if isinstance(source, Enum):
        return source
    same_file = [entry for entry in entries if source and Path(urlparse(entry.url).path).name == source.name]
    return (same_file or [getattr(entries, "IMAGENET1K_V1", entries.DEFAULT)])[0]


def _mean_and_std(entry: Enum, family: Family, pretrained: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if pretrained and family.own_normalisation:
        # inside the network, torchvision converts ImageNet's normalisation to this one (transform_input=True)
        return (0.5,) * 3, (0.5,) * 3
    preset = entry.transforms()
    return tuple(preset.mean), tuple(preset.std)


def _preprocess(entry: Enum, image_size: int | None, resize_mode: str) -> ImagePreprocess:
    preset = entry.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    size = crop if image_size is None else image_size
    resize = round(resize * size / crop) if isinstance(size, int) else resize
    return ImagePreprocess(size, resize, preset.interpolation.value, resize_mode)


def _size_of_positions(name: str, state: StateDict | None) -> int | None:
    """The image size of the weights of a ViT: grid of its position embeddings times patch size; None for others."""
    if state is None or POSITIONS not in state:
        return None
    return math.isqrt(state[POSITIONS].shape[1] - 1) * int(name.rpartition("_")[2])
