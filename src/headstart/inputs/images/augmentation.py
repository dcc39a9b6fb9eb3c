"""Random changes to training pictures; validation and test pictures are not changed.

Each function takes the backbone's preprocess and returns a transform of one picture, uint8 `(3, height, width)` to
uint8 `(3, image_size, image_size)`. Its deterministic part is separate, so that its result can be cached.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from headstart.errors import UsageError
from headstart.inputs.transforms import SplitTransform, Transform

GREY = [124.0, 124.0, 124.0]
"""Colour of pixels that a rotation uncovers or that are erased: near the mean that most weights normalise with."""


def none(preprocess: Any) -> Transform:
    """Training pictures as the backbone's weights expect them, unchanged."""
    return preprocess


@dataclass(frozen=True)
class Shrink:
    """Shrinks a picture to this length of its shorter side, antialiased; a smaller picture stays unchanged.

    Args:
        side: length of the shorter side in pixels.
        interpolation: `bilinear` or `bicubic`.
    """

    side: int
    interpolation: str

    def __call__(self, picture: Tensor) -> Tensor:
        """uint8 `(3, height, width)` to uint8 with `min(height, width) <= side`."""
        if min(picture.shape[1:]) <= self.side:
            return picture
        how = v2.InterpolationMode(self.interpolation)
        return functional.resize(picture, [self.side], how, antialias=True)


def flip_crop(preprocess: Any, scale: float = 0.35, flip: float = 0.5, erase: float = 0.0) -> SplitTransform:
    """A random crop of the picture and a mirror image.

    The picture is shrunk first, until its smallest square crop has the input size of the network, but at most to
    `decode_side`, the size at which pictures are decoded. So with a scale below about 0.2 the smallest crops are
    enlarged a little.

    Args:
        preprocess: gives `image_size`, `interpolation` and `decode_side`.
        scale: smallest share of the picture's area that a crop keeps, above 0.
        flip: probability of mirroring left and right.
        erase: probability of painting a rectangle grey.
    """
    _refuse_others(preprocess)
    _check(1e-6, 1, scale=scale)
    _check(0, 1, flip=flip, erase=erase)
    size, how = preprocess.image_size, v2.InterpolationMode(preprocess.interpolation)
    side = min(math.ceil(size / math.sqrt(scale)), preprocess.decode_side)
    crop = v2.RandomResizedCrop(size, scale=(scale, 1.0), interpolation=how, antialias=True)
    changes = [crop, v2.RandomHorizontalFlip(flip), *_erasing(erase)]
    return SplitTransform(Shrink(side, preprocess.interpolation), v2.Compose(changes))


def trivial_augment(preprocess: Any, scale: float = 0.35, flip: float = 0.5, erase: float = 0.0) -> SplitTransform:
    """`flip_crop`, then one random operation of random strength, then random erasing.

    Müller and Hutter 2021, https://arxiv.org/abs/2103.10158.
    """
    crop = flip_crop(preprocess, scale, flip)
    _check(0, 1, erase=erase)
    random = v2.Compose([crop.random, v2.TrivialAugmentWide(fill=GREY), *_erasing(erase)])
    return SplitTransform(crop.deterministic, random)


def affine(
    preprocess: Any,
    degrees: float = 0.0,
    shear: float = 0.0,
    zoom: float = 0.0,
    shift: float = 0.0,
    flip: float = 0.0,
    erase: float = 0.0,
) -> SplitTransform:
    """A random rotation, shear, zoom, shift and mirror image, after the weights' own resize and crop.

    Args:
        preprocess: the weights' resize and crop, applied first.
        degrees: largest rotation to either side, in degrees.
        shear: largest shear to either side, in degrees.
        zoom: scale between 1 - zoom and 1 + zoom, below 1.
        shift: move by up to this share of the width and height.
        flip: probability of mirroring left and right.
        erase: probability of painting a rectangle grey.
    """
    _refuse_others(preprocess)
    _check(0, 180, degrees=degrees)
    _check(0, 89, shear=shear)
    _check(0, 0.99, zoom=zoom)
    _check(0, 1, shift=shift, flip=flip, erase=erase)
    change = v2.RandomAffine(
        degrees=degrees,
        shear=(-shear, shear) if shear else None,
        scale=(1 - zoom, 1 + zoom) if zoom else None,
        translate=(shift, shift) if shift else None,
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=GREY,
    )
    return SplitTransform(preprocess, v2.Compose([change, v2.RandomHorizontalFlip(flip), *_erasing(erase)]))


def _erasing(probability: float) -> list[v2.Transform]:
    """Erases a rectangle of 2 to 33 % of the picture (Zhong et al. 2020, https://arxiv.org/abs/1708.04896).

    With probability 0 there is no transform, because it would still draw from the random generator.
    """
    return [v2.RandomErasing(probability, value=GREY)] if probability else []


def _refuse_others(preprocess: Any) -> None:
    if not hasattr(preprocess, "image_size"):
        kind = getattr(preprocess, "sample_name", "sample")
        raise UsageError(f"this augmentation is for pictures, not for {kind}s: type augmentation=none")


def _check(low: float, high: float, **given: float) -> None:
    for key, value in given.items():
        if not low <= value <= high:
            raise UsageError(f"augmentation.{key}={value}: give a number from {low} to {high}")
