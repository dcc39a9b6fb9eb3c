"""What an activation depends on, as a short text: equal fingerprints mean equal activations."""

import hashlib
from typing import Any

import PIL
import torch
import torchvision
from torch import Tensor, nn

from headstart.data.samples import Samples


def of_prefix(prefix: nn.Module, transform: Any, dtype: torch.dtype) -> str:
    """A fingerprint of all that turns a sample into its row: code, weights, transform, decoder, number format.

    Args:
        prefix: frozen, in eval mode.
        transform: from what the samples' `load` gives to one input; its `repr` must tell all its settings.
        dtype: of the stored rows.
    """
    digest = hashlib.blake2b(digest_size=16)
    code = getattr(prefix, "code", "")
    versions = (torch.__version__, torchvision.__version__, PIL.__version__)
    digest.update(repr((type(prefix).__qualname__, code, str(prefix), repr(transform), str(dtype), versions)).encode())
    for name, tensor in prefix.state_dict().items():
        digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def of_samples(samples: Samples, indices: list[int]) -> list[str]:
    """A fingerprint of each sample's content, 40 hex digits; of files it is that of their bytes, known from the scan."""
    if samples.digests is not None:
        return [samples.digests[index] for index in indices]
    return [hashlib.blake2b(_bytes(samples.load(index)), digest_size=20).hexdigest() for index in indices]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
