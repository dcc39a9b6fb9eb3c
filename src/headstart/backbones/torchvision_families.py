"""Differences between torchvision's classifiers: where they are cut and where their blocks begin."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torchvision
from torch import nn

OUTPUTS = ("penultimate", "pooled", "flattened")


@dataclass(frozen=True)
class Family:
    """The models of one file of `torchvision.models`.

    Args:
        blocks: network -> names of the modules where its blocks begin, input to output. The input of
            each is a single tensor, and all later layers depend only on it, so a network can be cut at any of them.
        classifier: the child that holds the last layer.
        pooling: where the last feature map becomes a vector: in the child `avgpool` (`module`), in `avgpool` but to a
            grid of several pixels (`grid`), in the classifier, in the code of `forward`, or nowhere (`tokens`).
        trunk: with `pooling="forward"`, the children that compute the last feature map.
        last: the modules that `penultimate` removes; None: the last `nn.Linear`.
        size_argument: the builder's argument for the image size, if parameters depend on it.
        ignore: prefixes of names in torchvision's files that are not used here (auxiliary heads).
        renames: parts of names that differ in older files, old -> new.
        own_normalisation: pretrained weights need pixels in [-1, 1], although their preset differs.
    """

    blocks: Callable[[nn.Module], list[str]]
    classifier: str = "classifier"
    pooling: Literal["module", "grid", "classifier", "forward", "tokens"] = "module"
    trunk: tuple[str, ...] = ()
    last: tuple[str, ...] | None = None
    size_argument: str | None = None
    ignore: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    own_normalisation: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """The allowed values of `output`."""
        return OUTPUTS[:1] if self.pooling == "tokens" else OUTPUTS


def find_family(name: str) -> Family:
    """The family of a torchvision model, by the file in which its builder is defined."""
    return FAMILIES[torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]]


def cut(net: nn.Module, family: Family, output: str) -> nn.Module:
    """`net` without the layers behind `output`; the other layers keep their names."""
    if output == "penultimate":
        linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        for name in family.last or linear[-1:]:
            net.set_submodule(name, nn.Identity())
        return net
    if output == "flattened" and family.pooling == "forward":
        return _trunk(net, family)
    pool: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if output == "pooled" else []
    if family.pooling == "classifier":
        net.set_submodule(family.classifier, nn.Sequential(*pool, nn.Flatten(1)))
        return net
    net.set_submodule(family.classifier, nn.Flatten(1))
    if family.pooling == "module" or (family.pooling == "grid" and pool):
        net.set_submodule("avgpool", nn.Sequential(*pool))
    if isinstance(getattr(net, "dropout", None), nn.Dropout):
        net.dropout = nn.Identity()
    return net


def _trunk(net: nn.Module, family: Family) -> nn.Module:
    layers = OrderedDict((name, getattr(net, name)) for name in family.trunk)
    if isinstance(net, torchvision.models.DenseNet):
        layers["relu"] = nn.ReLU(inplace=True)  # its forward does this between the last norm and the pooling
    layers["flatten"] = nn.Flatten(1)
    return nn.Sequential(layers)


def _named(*names: str) -> Callable[[nn.Module], list[str]]:
    return lambda net: list(names)


def _children_of(container: str, prefix: str = "") -> Callable[[nn.Module], list[str]]:
    """Children of a container ('': the network itself) whose names start with `prefix`."""
    path = f"{container}." if container else ""

    def blocks(net: nn.Module) -> list[str]:
        return [path + name for name, _ in net.get_submodule(container).named_children() if name.startswith(prefix)]

    return blocks


def _after_pools(net: nn.Module) -> list[str]:
    """The layer after each max-pooling (where the map is small), and the hidden layers of the classifier."""
    features = list(net.features.named_children())
    starts = [f"features.{b}" for (_, pool), (b, _) in pairwise(features) if isinstance(pool, nn.MaxPool2d)]
    return [*starts, "classifier"]


def _stages_with_downsampling(net: nn.Module) -> list[str]:
    """ConvNeXt and Swin: behind the patch embedding, stages and downsampling layers alternate."""
    return ["features.1", *(f"features.{i}" for i in range(2, len(net.features), 2))]


def _inverted_residual_stages(net: nn.Module) -> list[str]:
    """A stage starts at a block without a shortcut; the first inverted residual belongs to the stem."""
    last = len(net.features) - 1
    starts = [i for i in range(2, last) if not net.features[i].use_res_connect]
    return [f"features.{i}" for i in [*starts, last]]


def _mnasnet_stacks(net: nn.Module) -> list[str]:
    """The stacks, then the last convolution, which follows them directly."""
    stacks = [i for i, layer in enumerate(net.layers) if isinstance(layer, nn.Sequential)]
    return [f"layers.{i}" for i in [*stacks, stacks[-1] + 1]]


def _behind_the_stem(net: nn.Module) -> list[str]:
    return [f"features.{i}" for i in range(1, len(net.features))]


FAMILIES = {
    "alexnet": Family(_after_pools, pooling="grid"),
    "convnext": Family(_stages_with_downsampling),
    "densenet": Family(
        _children_of("features", "denseblock"),
        pooling="forward",
        trunk=("features",),
        renames=tuple((f".{layer}.{i}.", f".{layer}{i}.") for layer in ("norm", "relu", "conv") for i in (1, 2)),
    ),
    "efficientnet": Family(_behind_the_stem),
    "googlenet": Family(_children_of("", "inception"), "fc", ignore=("aux1.", "aux2."), own_normalisation=True),
    "inception": Family(_children_of("", "Mixed"), "fc", ignore=("AuxLogits.",), own_normalisation=True),
    "maxvit": Family(_children_of("blocks"), pooling="classifier", size_argument="input_size"),
    "mnasnet": Family(_mnasnet_stacks, pooling="forward", trunk=("layers",)),
    "mobilenetv2": Family(_inverted_residual_stages, pooling="forward", trunk=("features",)),
    "mobilenetv3": Family(_inverted_residual_stages),
    "regnet": Family(_children_of("trunk_output"), "fc"),
    "resnet": Family(_named("layer1", "layer2", "layer3", "layer4"), "fc"),
    "shufflenetv2": Family(
        _named("stage2", "stage3", "stage4", "conv5"),
        "fc",
        pooling="forward",
        trunk=("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),
    ),
    "squeezenet": Family(_after_pools, pooling="classifier", last=("classifier.1", "classifier.2")),
    "swin_transformer": Family(_stages_with_downsampling, "head"),
    "vgg": Family(_after_pools, pooling="grid"),
    "vision_transformer": Family(_children_of("encoder.layers"), "heads", pooling="tokens", size_argument="image_size"),
}
