"""Networks for tests of what must work with all: the smallest of each torchvision family, and a few for every day."""

from collections.abc import Collection, Iterable

import pytest

# with the smallest picture it takes
SMALLEST = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 32,
    "vit_b_32": 64,
}

# with and without BatchNorm, branches that are joined, a transformer
FEW = ["densenet121", "mobilenet_v3_small", "resnet18", "vgg11_bn", "vit_b_32"]


def slow_unless(few: Collection, names: Iterable) -> list:
    """The names as parameters of a test, of which only `few` belong to the default tests."""
    return [name if name in few else pytest.param(*_arguments(name), marks=pytest.mark.slow) for name in names]


def _arguments(name) -> tuple:
    return name if isinstance(name, tuple) else (name,)
