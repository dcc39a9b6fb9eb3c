"""Lets torch's optimizers step without loading the compiler of torch, which takes two seconds of processor time."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import optim

from headstart.light_imports import disable, loaded

KEPT_BY_TORCH = "__dynamo_disable"
"""Attribute of a function in which torch keeps its version that is left out of compiled code."""


def step_without_compiler() -> None:
    """Changes the optimizer classes of torch; a second call changes nothing.

    Their methods ask `torch._dynamo` to leave them out of compiled code, and so load it. After this they do it only if
    something else has loaded it, such as `torch.compile`.
    """
    shared = optim.Optimizer
    for method in (shared.add_param_group, shared.zero_grad, shared.state_dict, shared.load_state_dict):
        function = getattr(method, "__wrapped__", None)
        if function is not None and not hasattr(function, KEPT_BY_TORCH):
            setattr(function, KEPT_BY_TORCH, disable(function, wrapping=False))
    for kind in vars(optim).values():
        step = vars(kind).get("step") if isinstance(kind, type) else None
        if _loads_compiler(step):
            kind.step = _light(step)


def _loads_compiler(step: Any) -> bool:
    """Whether a method is wrapped by torch's `_use_grad_for_differentiable`, and by nothing else."""
    return hasattr(step, "__wrapped__") and step.__code__.co_name == "_use_grad"


def _light(step: Callable[..., Any]) -> Callable[..., Any]:
    """The method, which without the compiler does the same as torch's wrapper, except for a mark in compiled code."""

    @wraps(step)
    def light(self: optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        if loaded("torch._dynamo"):
            return step(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step.__wrapped__(self, *args, **kwargs)

    return light
