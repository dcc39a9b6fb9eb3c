"""The library for explanations, and the number that is explained."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headstart.errors import UsageError


def has_captum() -> bool:
    """Whether the library for explanations is installed."""
    return importlib.util.find_spec("captum") is not None


def require_captum() -> None:
    """Raises a UsageError if the library is not installed."""
    if not has_captum():
        raise UsageError('explain needs the library captum: pip install -e ".[explain]", or leave explain out')


class ChosenLogit(nn.Module):
    """The logit of the class that is given for each sample.

    Args:
        network: inputs -> logits `(batch, num_outputs)`; a single logit belongs to class 1, its negative to class 0.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs: Any, chosen: Tensor) -> Tensor:
        """Inputs and class indices `(batch,)` -> logits `(batch,)`."""
        logits = self.network(inputs)
        if logits.shape[1] == 1:
            return logits[:, 0] * (2 * chosen - 1)
        return logits.gather(1, chosen[:, None])[:, 0]


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients are computed, without a warning of captum about the gradients of the inputs."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        yield
