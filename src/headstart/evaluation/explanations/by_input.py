"""Chooses the explanation by the kind of input."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.display.contact_sheet import is_picture
from headstart.errors import UsageError
from headstart.evaluation.explanations import pictures, texts
from headstart.inputs.base import Preprocess
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.inputs.text.words import blank_token

Explain = Callable[[nn.Module, Backbone, list[Any], list[int]], Any]
"""Network, its backbone, samples as they are shown, a class index of each -> one explanation per sample.

A picture is explained by a heat map `(height, width)`, a text by its words and their weights."""


def explanation_for(preprocess: Preprocess, sample: Any) -> Explain:
    """The function that explains predictions for inputs of this kind.

    Args:
        preprocess: of the model.
        sample: one sample as it is shown: a raw text, or a picture as the network gets it.

    Raises:
        UsageError: there is none.
    """
    if isinstance(preprocess, TextPreprocess):
        return texts.explain
    if is_picture(sample):
        return pictures.explain
    raise UsageError(f"explain works for pictures and texts, not for a {preprocess.sample_name} of this model")


def can_explain(preprocess: Preprocess) -> bool:
    """Whether predictions for inputs of this kind can be explained."""
    if isinstance(preprocess, TextPreprocess):
        return blank_token(preprocess) is not None
    example = preprocess.example(1)
    return isinstance(example, Tensor) and is_picture(example[0])
