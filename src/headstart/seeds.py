"""Seeds computed from epoch and position, so that an interrupted run continues exactly."""

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """A seed below 2^63 for one place of a run, such as (seed, epoch, position). Seeds of neighbours are unrelated."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def reseed(seed: int) -> None:
    """Sets the generators of the CPU, CUDA, MPS, NumPy and Python.

    `torch.manual_seed` takes half a millisecond, because it also prepares devices that are not in use.
    """
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    reseed_cpu(seed)


def reseed_cpu(seed: int) -> None:
    """Sets the random generators that transforms use. Takes microseconds."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
