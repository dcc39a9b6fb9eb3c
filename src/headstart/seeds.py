"""Random numbers that are a function of where a run stands, so that an interrupted run goes on exactly."""

import hashlib
import random

import numpy as np
import torch


def derive(*parts: int) -> int:
    """A seed (below 2^63) for one place of a run, such as seed, epoch and position; neighbours share nothing."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def reseed(seed: int) -> None:
    """Sets the generators of torch (all devices), NumPy and Python."""
    torch.manual_seed(seed)
    reseed_cpu(seed)


def reseed_cpu(seed: int) -> None:
    """Sets the generators that transforms draw from; unlike `torch.manual_seed` it costs microseconds."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
