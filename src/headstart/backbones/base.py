"""The interface of all backbones: a batch of pictures (or tokens) -> feature vectors, and an ordered list of blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from headstart.errors import UsageError, nearest
from headstart.inputs.base import Preprocess, Setting

STEM = "stem"


@dataclass
class LayerGroup:
    """A consecutive part of a backbone that is frozen or trained as a whole.

    Args:
        name: readable and unique within the backbone, such as `layer4`.
        modules: qualified name -> module. Only the parameters, buffers and training flag of the module *itself*
            belong to the group, not those in its children.
    """

    name: str
    modules: dict[str, nn.Module] = field(default_factory=dict)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Pairs `(name, parameter)` from input to output, with the names of `backbone.named_parameters()`."""
        for module_name, module in self.modules.items():
            for name, parameter in module.named_parameters(recurse=False):
                yield (f"{module_name}.{name}" if module_name else name), parameter

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the group, from input to output."""
        return (parameter for _, parameter in self.named_parameters())

    @property
    def frozen(self) -> bool:
        """True when the group has parameters and none of them is trained."""
        trained = [parameter.requires_grad for parameter in self.parameters()]
        return bool(trained) and not any(trained)

    def set_trainable(self, trainable: bool, which: Callable[[nn.Parameter], bool] | None = None) -> None:
        """Unfreezes the group (only the parameters that `which` accepts), or freezes it.

        The gradient of a frozen parameter is removed: with a gradient, the optimizer would still apply momentum and
        weight decay to it.
        """
        for parameter in self.parameters():
            trained = trainable and (which is None or which(parameter))
            parameter.requires_grad_(trained)
            if not trained:
                parameter.grad = None


class Backbone(nn.Module):
    """A pretrained network without its classifier. Subclasses set the attributes and implement `forward`.

    Attributes:
        num_features: length of the feature vector.
        blocks: names of modules (relative to the backbone), input to output, each the *start* of a layer group.
        preprocess: turns raw samples into the batches that `forward` takes.
        pretrained: False when the parameters are random.
        variable_length: whether inputs have different lengths; dimension 1 of a batch, and of the activations between
            its layers, is then the place in the sample, and activations are zero behind its end.

    Args:
        mean, std: mean and standard deviation per channel, of pixels in [0, 1]; None if the inputs are not pictures.
    """

    num_features: int
    blocks: list[str]
    preprocess: Preprocess
    pretrained: bool = False
    variable_length: ClassVar[bool] = False
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None):
        super().__init__()
        if mean is not None and std is not None:
            self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
            self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, inputs: Any) -> Tensor:
        """A batch of inputs -> features `(batch, num_features)`."""
        raise NotImplementedError

    @property
    def rebuild(self) -> dict[str, Any]:
        """Arguments of the constructor that a checkpoint keeps, to build the network without the files it came from."""
        return {}

    def suggest(self, num_train: int) -> list[Setting]:
        """Settings that suit this network and this number of training samples better (`finetuning=auto`)."""
        return []

    def normalise(self, images: Tensor) -> Tensor:
        """Normalises pictures `(batch, 3, height, width)`, uint8 in [0, 255] or float in [0, 1], by `mean` and `std`.

        The result has the dtype of the buffers, which is that of the parameters: `model.half()` and autocast both work.

        Raises:
            UsageError: the input is not a batch of RGB pictures.
        """
        return _normalise(images, self.mean, self.std)

    def constants(self) -> dict[str, list[float]]:
        """`mean` and `std`, one number per channel; empty if the inputs are not pictures."""
        known = {name: getattr(self, name) for name in ("mean", "std") if hasattr(self, name)}
        return {name: [round(value, 6) for value in tensor.flatten().tolist()] for name, tensor in known.items()}

    def layer_groups(self) -> list[LayerGroup]:
        """The layer groups, from the stem to the last block; every parameter is in exactly one group.

        A group begins at its block and ends before the next one. Modules before the first block are the stem, which is
        left out if it has no parameter. So embeddings, transitions and final norms need no names.

        Raises:
            UsageError: a module was wrapped by `torch.compile`, which renames all parameters in it.
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
                f"'{compiled[0]}' was made by torch.compile(module), which renames all parameters in it. "
                "Compile in place with module.compile() instead."
            )
        for block in self.blocks:
            if block not in names:
                raise ValueError(f"block '{block}' is no module of {type(self).__name__}{nearest(block, names)}")
        in_order = [name for name in names if name in self.blocks]
        if in_order != list(self.blocks):
            raise ValueError(f"blocks are out of order or repeated: {list(self.blocks)}; the network has {in_order}.")


@fx.wrap  # one operation for torch.fx, because its branches depend on the pictures
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
    """Block names without common containers; a container stays where the rest would begin with a number."""
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
        raise ValueError(f"'{STEM}' is the name of the layers before the first block; leave it out of `blocks`.")
    owner: dict[nn.Parameter, str] = {}
    for group in groups:
        for name, parameter in group.named_parameters():
            if owner.setdefault(parameter, group.name) != group.name:
                raise ValueError(
                    f"parameter '{name}' is shared by the layer groups {owner[parameter]} and {group.name}."
                )
