"""Networks on the meta device, which computes shapes only: no memory and no time for values."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from headstart.backbones.base import Backbone
from headstart.errors import UsageError
from headstart.light_imports import without_compiler


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Within this context, networks get parameters without memory or values: no time for random values before loading.

    Buffers are real. With `torch.device("meta")` they would not be, and RegNets could not be built.
    """

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        return None if parameter is None else nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    handle = register_module_parameter_registration_hook(to_meta)
    try:
        with without_compiler():  # also "drawing" random values on the meta device would load it
            yield
    finally:
        handle.remove()


@contextmanager
def on_meta(network: nn.Module) -> Iterator[None]:
    """Within this context, the parameters and buffers of `network` have no values; afterwards they are as before.

    `torch.func.functional_call` does not give back the tensors of modules that are used in several places.
    """
    kept = [(each, dict(each)) for module in network.modules() for each in (module._parameters, module._buffers)]
    for tensors, values in kept:
        tensors.update({key: None if value is None else value.to("meta") for key, value in values.items()})
    try:
        yield
    finally:
        for tensors, values in kept:
            tensors.clear()
            tensors.update(values)


def count_features(backbone: Backbone, name: str) -> int:
    """Length of the feature vector, from a forward pass on the meta device.

    Args:
        backbone: its preprocess gives square pictures.
        name: of the network, for the error.

    Raises:
        UsageError: the network does not take pictures of this size, or gives no vectors.
    """
    size = backbone.preprocess.image_size
    picture = torch.empty(1, 3, size, size, dtype=torch.uint8, device="meta")
    backbone.eval()  # in train mode, BatchNorm needs more than one value per channel
    try:
        with torch.no_grad(), on_meta(backbone), without_compiler():
            features = backbone(picture)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise bad_size(name, size, error) from error
    finally:
        backbone.train()
    if features.ndim != 2:
        shape = tuple(features.shape)
        raise UsageError(f"{name} gives features of shape {shape}, not one vector per picture: give another model.name")
    return features.shape[1]


def bad_size(name: str, size: int, error: Exception) -> UsageError:
    """The error for a size of pictures that a network does not take."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UsageError(
        f"model.image_size={size} does not work with {name}: {reason} Leave it out to use the size of the weights."
    )
