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
    """Sets the random generators of torch (all devices), NumPy and Python."""
    torch.manual_seed(seed)
    reseed_cpu(seed)


def reseed_cpu(seed: int) -> None:
    """Sets the random generators that transforms use. Takes microseconds, unlike `torch.manual_seed`."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
