"""Training on pictures made of two, whose targets are made of the two in the same shares."""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from headstart.errors import UsageError


class Mixing:
    """Mixes every picture of a batch with its neighbour, and the targets by the same shares.

    MixUp adds the two, weighted (Zhang et al. 2018, https://arxiv.org/abs/1710.09412); CutMix puts a rectangle of one
    into the other (Yun et al. 2019, https://arxiv.org/abs/1905.04899). The shares of a batch are drawn from the Beta
    distribution of (alpha, alpha): a small alpha leaves one of the two nearly alone, with 1 all shares are as likely.
    Where both are wanted, each batch has one of them, as likely as the other. Training batches are shuffled, so
    neighbours are any two. All that is random comes from torch's CPU generator, which is seeded by batch
    (`callbacks/batch_seeds.py`).

    Args:
        num_classes: of the targets.
        mixup: alpha of MixUp, 0 for none.
        cutmix: alpha of CutMix, 0 for none.

    Raises:
        UsageError: an alpha below 0, or none above it.
    """

    def __init__(self, num_classes: int, mixup: float = 0.0, cutmix: float = 0.0):
        for key, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= alpha < float("inf"):
                raise UsageError(f"mixing.{key}={alpha}: give 0 for none, or a number above, such as 0.2 or 1")
        if not mixup and not cutmix:
            raise UsageError("mixing.mixup=0 mixing.cutmix=0: give one of them a number above 0, or leave mixing out")
        self.ways: list[v2.Transform] = []
        # floats: torchvision's distribution cannot draw with a whole number such as mixing.mixup=1
        if mixup:
            self.ways.append(v2.MixUp(alpha=float(mixup), num_classes=num_classes))
        if cutmix:
            self.ways.append(v2.CutMix(alpha=float(cutmix), num_classes=num_classes))

    def __call__(self, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a batch.

        Args:
            inputs: pictures `(batch, 3, height, width)`, uint8 in [0, 255] or floats in [0, 1].
            targets: class indices `(batch,)`, or zeros and ones `(batch, num_classes)`.

        Returns:
            pictures in the same range of the same type, but floats in [0, 1] after MixUp; and the shares of the
            classes, floats `(batch, num_classes)`.

        Raises:
            UsageError: the inputs are no pictures.
        """
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            given = f"of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else f"of type {type(inputs)}"
            raise UsageError(
                "only batches of pictures (batch, 3, height, width) can be mixed, but the data yield inputs "
                f"{given}: leave mixing out"
            )
        way = self.ways[int(torch.randint(len(self.ways), ()))]
        if isinstance(way, v2.MixUp):  # sums of bytes need fractions
            inputs = v2.functional.to_dtype(inputs, torch.float32, scale=True)
        return way(inputs, targets)
