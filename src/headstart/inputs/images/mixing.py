"""MixUp and CutMix: training on mixtures of two pictures, whose targets are mixed in the same proportion."""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from headstart.errors import UsageError


class Mixing:
    """Mixes every picture of a batch with its neighbour, and the targets in the same proportion.

    MixUp is the weighted mean of the two (Zhang et al. 2018, https://arxiv.org/abs/1710.09412); CutMix pastes a
    rectangle of one into the other (Yun et al. 2019, https://arxiv.org/abs/1905.04899). The weight is drawn for each
    batch from the distribution Beta(alpha, alpha): a small alpha draws values near 0 or 1; alpha 1 is uniform.
    If both are on, each batch uses one of them, with equal probability. Training batches are shuffled, so the
    neighbours are random pairs. All random numbers come from torch's CPU generator, which is seeded for each batch
    (`callbacks/batch_seeds.py`).

    Args:
        num_classes: number of classes of the targets.
        mixup: alpha of MixUp; 0 turns it off.
        cutmix: alpha of CutMix; 0 turns it off.

    Raises:
        UsageError: an alpha is negative or infinite, or both are 0.
    """

    def __init__(self, num_classes: int, mixup: float = 0.0, cutmix: float = 0.0):
        for key, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= alpha < float("inf"):
                raise UsageError(f"mixing.{key}={alpha}: give 0 to turn it off, or a positive number such as 0.2 or 1")
        if not mixup and not cutmix:
            raise UsageError("mixing.mixup=0 mixing.cutmix=0: give one of them a positive number, or leave mixing out")
        self.methods: list[v2.Transform] = []
        # torchvision's distribution needs floats; mixing.mixup=1 is an integer
        if mixup:
            self.methods.append(v2.MixUp(alpha=float(mixup), num_classes=num_classes))
        if cutmix:
            self.methods.append(v2.CutMix(alpha=float(cutmix), num_classes=num_classes))

    def __call__(self, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a batch.

        Args:
            inputs: pictures `(batch, 3, height, width)`, uint8 in [0, 255] or floats in [0, 1].
            targets: class indices `(batch,)`, or zeros and ones `(batch, num_classes)`.

        Returns:
            pictures of the same type and range (after MixUp always floats in [0, 1]), and the weights of the classes,
            floats `(batch, num_classes)`.

        Raises:
            UsageError: the inputs are not pictures.
        """
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            given = f"of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else f"of type {type(inputs)}"
            raise UsageError(
                "mixing works on batches of pictures (batch, 3, height, width), but the data set gives inputs "
                f"{given}: leave mixing out"
            )
        method = self.methods[int(torch.randint(len(self.methods), ()))]
        if isinstance(method, v2.MixUp):  # a weighted mean of bytes needs floats
            inputs = v2.functional.to_dtype(inputs, torch.float32, scale=True)
        return method(inputs, targets)
