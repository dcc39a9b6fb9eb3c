"""Heat maps: which pixels led to a prediction, from the last layer that still has spatial positions.

With captum: Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) if the output of that layer is a feature
map `(batch, channels, height, width)`; gradient times activation, summed over the channels of each token (HiResCAM,
Draelos and Carin 2020, https://arxiv.org/abs/2011.08891), if it is a sequence of tokens as in a vision transformer.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.backbones.base import Backbone
from headstart.errors import UsageError
from headstart.evaluation.explanations.attribution import ChosenLogit, gradients, require_captum

COARSEST = 4
"""Least height and width of a feature map. If the last one is smaller (small pictures), an earlier one is used."""


def explain(network: nn.Module, backbone: Backbone, pictures: Iterable[Tensor], classes: list[int]) -> Tensor:
    """How much each pixel raises the logit of a class.

    Args:
        network: pictures -> logits `(batch, num_outputs)`; a single logit belongs to class 1, its negative to class 0.
        backbone: the part of the network that the map is taken from.
        pictures: uint8 `(3, height, width)` each, all of one size, on any device.
        classes: one class index per picture.

    Returns:
        `(batch, height, width)` on the CPU, from 0 to 1 for each picture; all zeros if nothing raises the logit.

    Raises:
        UsageError: captum is not installed, or no layer of the backbone has spatial positions.
    """
    require_captum()
    device = next(network.parameters()).device
    batch = torch.stack(list(pictures)).to(device)
    layer, tokens = _layer_with_places(backbone, batch[:1])
    chosen = torch.tensor(classes, device=device)
    maps = _attributed(ChosenLogit(network), layer, tokens, batch / 255, chosen)
    enlarged = functional.interpolate(maps[:, None], batch.shape[-2:], mode="bilinear")[:, 0]
    return (enlarged / enlarged.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu()


def _attributed(network: nn.Module, layer: nn.Module, tokens: bool, pictures: Tensor, chosen: Tensor) -> Tensor:
    """The positive part of captum's attribution, `(batch, rows, columns)`."""
    from captum.attr import LayerGradCam, LayerGradientXActivation

    with gradients():
        if not tokens:
            return (
                LayerGradCam(network, layer).attribute(pictures, additional_forward_args=chosen)[:, 0].relu().detach()
            )
        method = LayerGradientXActivation(network, layer)
        # the input of the last block, because the head uses only the class token of its output
        found = method.attribute(pictures, additional_forward_args=chosen, attribute_to_layer_input=True)
    found = (found[0] if isinstance(found, tuple) else found).sum(dim=2).relu().detach()
    side = math.isqrt(found.shape[1])
    return found[:, found.shape[1] - side**2 :].reshape(-1, side, side)  # special tokens come first


def _layer_with_places(backbone: Backbone, picture: Tensor) -> tuple[nn.Module, bool]:
    """The last module whose output is a map that is not too coarse, or the last block if its input is tokens."""
    outputs: list[tuple[nn.Module, torch.Size]] = []

    def note(module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append((module, output.shape))

    handles = [module.register_forward_hook(note) for module in backbone.modules() if module is not backbone]
    try:
        with torch.no_grad():
            backbone(picture)
    finally:
        for handle in handles:
            handle.remove()
    last = backbone.get_submodule(backbone.blocks[-1])
    if any(module is last and len(shape) == 3 for module, shape in outputs):
        return last, True
    maps = [(module, min(shape[-2:])) for module, shape in outputs if len(shape) == 4]
    fine = [module for module, side in maps if side >= COARSEST] or [module for module, side in maps if side > 1]
    if not fine:
        raise UsageError(
            f"explain: {type(backbone).__name__} has no layer with spatial positions, which a heat map needs"
        )
    return fine[-1], False
