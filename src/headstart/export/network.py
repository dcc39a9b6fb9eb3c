"""The network of an export: a classifier, and its preprocessing if that can be exported."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headstart.inference.classifier import Classifier


class WithPreprocessing(nn.Module):
    """A classifier that takes a batch of raw samples of one shape.

    Args:
        preprocessing: raw samples -> inputs of the classifier.
        classifier: the trained model.
    """

    def __init__(self, preprocessing: nn.Module, classifier: Classifier):
        super().__init__()
        self.preprocessing, self.classifier = preprocessing, classifier

    def forward(self, raw: Any) -> Tensor:
        """Raw samples -> probabilities, float32 `(batch, num_classes)`."""
        return self.classifier(self.preprocessing(raw))


def input_names(batch: Any, name: str) -> list[str]:
    """The names of a network's inputs: the keys of a dict of tensors; `name` for one tensor."""
    return list(batch) if isinstance(batch, Mapping) else [name]


def dynamic_shapes(axes: Any) -> Any:
    """Names of dimensions from `Preprocess.export_example` -> dimensions of torch.export, one per name."""
    known: dict[str, Any] = {}

    def made(node: Any) -> Any:
        if all(isinstance(key, int) for key in node):
            return {place: known.setdefault(name, torch.export.Dim(name, min=1)) for place, name in node.items()}
        return {key: made(value) for key, value in node.items()}

    return made(axes)
