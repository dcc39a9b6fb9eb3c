"""Resize and crop as part of an exported network, for pictures of any size.

An export of `ImagePreprocess` would work only for the size of the example picture, because Python branches on sizes are
fixed at export. Here the sizes are computed with symbolic arithmetic. `ImagePreprocess` is the reference: the parity
check of every export compares the two.
"""

import torch
from torch import Tensor, nn


class Resize(nn.Module):
    """Resizes pictures to the network's input size: uint8 `(batch, 3, height, width)` -> `(batch, 3, size, size)`.

    Args:
        mode, interpolation, size, shorter_side: `resize_mode`, `interpolation`, `image_size` and `resize_size` of an
            `ImagePreprocess`.
    """

    def __init__(self, mode: str, interpolation: str, size: int, shorter_side: int):
        super().__init__()
        self.mode, self.bicubic, self.size, self.shorter_side = mode, interpolation == "bicubic", size, shorter_side

    def scripted(self) -> nn.Module:
        """The same as TorchScript, because a trace would work only for the sizes of its example."""
        return _ScriptedResize(self)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures `(batch, 3, height, width)` -> the input of the network."""
        # the memory format that decoders write; the kernel is twice as fast with it
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return resize(pictures, self.mode, self.bicubic, self.size, self.shorter_side)


class _ScriptedResize(nn.Module):
    def __init__(self, module: Resize):
        super().__init__()
        self.function = torch.jit.script(resize)
        self.settings = module.mode, module.bicubic, module.size, module.shorter_side

    def forward(self, pictures: Tensor) -> Tensor:
        return self.function(pictures.contiguous(memory_format=torch.channels_last), *self.settings)


def resize(pictures: Tensor, mode: str, bicubic: bool, size: int, shorter_side: int) -> Tensor:
    """`Resize` as a function that works with `torch.export`, `torch.jit.script` and plain Python."""
    height, width = pictures.shape[2], pictures.shape[3]
    if mode == "squash":
        return antialiased(pictures, size, size, bicubic)
    if mode == "letterbox":
        longest = larger(height, width)
        height, width = size * height // longest, size * width // longest
        resized = antialiased(pictures, height, width, bicubic)
        left, top = (size - width) // 2, (size - height) // 2
        return torch.nn.functional.pad(resized, [left, size - width - left, top, size - height - top])
    shortest = smaller(height, width)
    height, width = shorter_side * height // shortest, shorter_side * width // shortest
    resized = antialiased(pictures, height, width, bicubic)
    # index_select: torch.export cannot know that a slice with symbolic ends has a constant size
    rows = torch.arange(size, device=pictures.device) + middle(height - size)
    columns = torch.arange(size, device=pictures.device) + middle(width - size)
    return resized.index_select(2, rows).index_select(3, columns)


def antialiased(pictures: Tensor, height: int, width: int, bicubic: bool) -> Tensor:
    """Resized by the kernels that torchvision uses."""
    if bicubic:
        return torch.ops.aten._upsample_bicubic2d_aa(pictures, [height, width], False, None, None)
    return torch.ops.aten._upsample_bilinear2d_aa(pictures, [height, width], False, None, None)


def middle(left_over: int) -> int:
    """Half of a number, rounded to even like Python's `round`, which torchvision uses."""
    return left_over // 2 + left_over % 4 // 3


def smaller(a: int, b: int) -> int:
    """The smaller of two sizes, also of symbolic ones."""
    if torch.jit.is_scripting():
        return min(a, b)
    return torch.sym_min(a, b)


def larger(a: int, b: int) -> int:
    """The larger of two sizes, also of symbolic ones."""
    if torch.jit.is_scripting():
        return max(a, b)
    return torch.sym_max(a, b)
