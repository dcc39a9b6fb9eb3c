"""A largest size for networks whose description may come from a stranger."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

IF_NOT_KNOWN = 10**10
"""Parameters that may be built if the memory of the machine is not known."""


@contextmanager
def at_most_parameters(most: int) -> Iterator[None]:
    """Within this context, networks get at most this number of parameters, all together.

    A parameter is counted before it gets its values, so even a description with huge sizes takes little memory.

    Raises:
        ValueError: in the context, when there are more.
    """
    number = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal number
        number += 0 if parameter is None else parameter.numel()
        if number > most:
            raise ValueError(f"the network has more than {most:,} parameters")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def most_in_memory() -> int:
    """The number of parameters that fit into the memory of this machine."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):  # Windows
        return IF_NOT_KNOWN
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
