"""The contract every backbone keeps: pixels (or tokens) in, one feature vector out, and an ordered list of blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.errors import UsageError, nearest
from headstart.inputs.base import Preprocess

STEM = "stem"


@dataclass
class LayerGroup:
    """A consecutive piece of a backbone that is frozen or trained as one.

    Args:
        name: readable and unique within the backbone, such as `layer4`.
        modules: qualified name -> module. Only what a module owns *itself* (not its children's parameters, buffers
            and training flag) belongs to the group.
    """

    name: str
    modules: dict[str, nn.Module] = field(default_factory=dict)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """`(name as in the backbone's own named_parameters(), parameter)`, input to output."""
        for module_name, module in self.modules.items():
            for name, parameter in module.named_parameters(recurse=False):
                yield (f"{module_name}.{name}" if module_name else name), parameter

    def parameters(self) -> Iterator[nn.Parameter]:
        """The group's parameters, input to output."""
        return (parameter for _, parameter in self.named_parameters())

    @property
    def frozen(self) -> bool:
        """True when the group has parameters and none of them learns."""
        learns = [parameter.requires_grad for parameter in self.parameters()]
        return bool(learns) and not any(learns)

    def set_trainable(self, trainable: bool, which: Callable[[nn.Parameter], bool] | None = None) -> None:
        """Let the group learn (of its parameters those that `which` accepts), or freeze it.

        A frozen parameter also loses its gradient: with one left behind, an optimizer would go on applying momentum
        and weight decay.
        """
        for parameter in self.parameters():
            learns = trainable and (which is None or which(parameter))
            parameter.requires_grad_(learns)
            if not learns:
                parameter.grad = None


class Backbone(nn.Module):
    """A pretrained network without its classifier. Subclasses set the attributes and write `forward`.

    Attributes:
        num_features: length of the feature vector.
        blocks: names of modules (relative to the backbone), input to output, each the *start* of a layer group.
        preprocess: turns raw samples into the batches that `forward` takes.
        pretrained: False when the parameters are random.

    Args:
        mean, std: per-channel constants of the pixels in [0, 1]; None for backbones that do not see pictures.
    """

    num_features: int
    blocks: list[str]
    preprocess: Preprocess
    pretrained: bool = False
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None):
        super().__init__()
        if mean is not None and std is not None:
            self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
            self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, inputs: Any) -> Tensor:
        """A batch of inputs to features `(batch, num_features)`."""
        raise NotImplementedError

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 in [0, 255] or float in [0, 1], `(batch, 3, height, width)`, to zero mean and unit variance.

        The result has the type of the buffers, hence of the parameters: `model.half()` and autocast both work.

        Raises:
            UsageError: anything but a batch of RGB pictures.
        """
        return _normalise(images, self.mean, self.std)

    def constants(self) -> dict[str, list[float]]:
        """Mean and standard deviation per channel, by name; empty for backbones that do not see pictures."""
        known = {name: getattr(self, name) for name in ("mean", "std") if hasattr(self, name)}
        return {name: [round(value, 6) for value in tensor.flatten().tolist()] for name, tensor in known.items()}

    def layer_groups(self) -> list[LayerGroup]:
        """The backbone cut at its blocks: every parameter in exactly one group, from the stem to the last block.

        By position alone: what precedes the first block is the stem (left out when it owns no parameter), and a group
        reaches from its block to the next one. So embeddings, transitions and final norms need no naming.

        Raises:
            UsageError: a part was wrapped by `torch.compile`, which renames everything below it.
            ValueError: `blocks` do not describe this network.
        """
        modules = dict(self.named_modules())
        self._check_blocks(list(modules))
        names = dict(zip(self.blocks, _short_names(self.blocks), strict=True))
        groups = [LayerGroup(STEM)]
        for name, module in modules.items():
            if name in names:
                groups.append(LayerGroup(names[name]))
            groups[-1].modules[name] = module
        if not list(groups[0].parameters()):
            del groups[0]
        _check_groups(groups)
        return groups

    def _check_blocks(self, names: list[str]) -> None:
        if compiled := [name for name in names if "_orig_mod" in name.split(".")]:
            raise UsageError(
                f"'{compiled[0]}' was made by torch.compile(module), which renames every parameter below it. "
                "Compile in place with module.compile() instead."
            )
        for block in self.blocks:
            if block not in names:
                raise ValueError(f"block '{block}' is no module of {type(self).__name__}{nearest(block, names)}")
        in_order = [name for name in names if name in self.blocks]
        if in_order != list(self.blocks):
            raise ValueError(f"blocks are out of order or repeated: {list(self.blocks)}; the network has {in_order}.")


@fx.wrap  # one operation for whoever traces a backbone: its branches look at the pictures
def _normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != mean.numel():
        raise UsageError(
            f"the backbone was given a tensor of shape {tuple(images.shape)}; it takes RGB pictures of shape "
            "(batch, 3, height, width). Read greyscale pictures as RGB, as in image.convert('RGB')."
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UsageError(f"pictures of type {images.dtype}: give uint8 in [0, 255] or floats in [0, 1].")
    scale = 255 if images.dtype == torch.uint8 else 1
    # channels_last: convolutions on CPUs and tensor cores are several times faster in it
    images = images.to(mean.dtype, memory_format=torch.channels_last)
    return (images - mean * scale) / (std * scale)


def _short_names(blocks: list[str]) -> list[str]:
    """Block names without the containers they all share, save the one that gives a bare number its meaning."""
    paths = [block.split(".") for block in blocks]
    shared = 0
    while all(len(path) > shared + 1 for path in paths) and len({path[shared] for path in paths}) == 1:
        shared += 1
    while shared and any(path[shared].isdigit() for path in paths):
        shared -= 1
    return [".".join(path[shared:]) for path in paths]


def _check_groups(groups: list[LayerGroup]) -> None:
    if empty := [group.name for group in groups if not list(group.parameters())]:
        raise ValueError(f"layer groups without a parameter: {empty}. Leave these out of `blocks`.")
    if [group.name for group in groups].count(STEM) > 1:
        raise ValueError(f"'{STEM}' is the name of what precedes the first block; leave it out of `blocks`.")
    owner: dict[nn.Parameter, str] = {}
    for group in groups:
        for name, parameter in group.named_parameters():
            if owner.setdefault(parameter, group.name) != group.name:
                raise ValueError(
                    f"parameter '{name}' is shared by the layer groups {owner[parameter]} and {group.name}."
                )
