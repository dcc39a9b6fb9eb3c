"""Chooses the explanation by the kind of input."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.display.by_sample import as_shown
from headstart.display.contact_sheet import is_picture
from headstart.display.heat_map import placed
from headstart.errors import UsageError
from headstart.evaluation.explanations import pictures, texts
from headstart.inputs.base import Preprocess
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.inputs.text.words import blank_token

Explain = Callable[[nn.Module, Backbone, list[Any], list[int]], Any]
"""Network, its backbone, raw samples, a class index of each -> one explanation per sample.

A picture is explained by a heat map with the height and width at which it is shown, a text by its words and their
weights."""


def explanation_for(preprocess: Preprocess, sample: Any) -> Explain:
    """The function that explains predictions for inputs of this kind.

    Args:
        preprocess: of the model.
        sample: one raw sample.

    Raises:
        UsageError: there is none.
    """
    if isinstance(preprocess, TextPreprocess):
        return texts.explain
    if is_picture(sample) or (not isinstance(preprocess, ImagePreprocess) and can_explain(preprocess)):
        return _explain_pictures
    raise UsageError(f"explain works for pictures and texts, not for a {preprocess.sample_name} of this model")


def _explain_pictures(network: nn.Module, backbone: Backbone, raw: list[Any], classes: list[int]) -> list[Tensor]:
    preprocess = backbone.preprocess
    heats = pictures.explain(network, backbone, map(preprocess, raw), classes)
    return [_on_shown(heat, preprocess, each) for heat, each in zip(heats, raw, strict=True)]


def _on_shown(heat: Tensor, preprocess: Preprocess, raw: Any) -> Tensor:
    """A heat map of the network's input as one of the picture as it is shown."""
    if not (isinstance(preprocess, ImagePreprocess) and is_picture(raw)):
        return heat  # the input itself is shown
    height, width = as_shown(raw, preprocess).shape[-2:]
    return placed(heat, preprocess.seen(height, width), height, width)


def can_explain(preprocess: Preprocess) -> bool:
    """Whether predictions for inputs of this kind can be explained."""
    if isinstance(preprocess, TextPreprocess):
        return blank_token(preprocess) is not None
    example = preprocess.example(1)
    return isinstance(example, Tensor) and is_picture(example[0])
