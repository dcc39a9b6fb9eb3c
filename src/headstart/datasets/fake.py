"""Generated pictures, for tests and for trying a configuration in seconds."""

from typing import Any

import torch
from torch import Tensor

from headstart.data.module import DataModule
from headstart.data.samples import Samples


class Fake(DataModule):
    """Pictures with noise around one colour per class: easy to learn, unless something is broken.

    Args:
        num_samples: number of pictures in all splits together.
        num_classes: number of classes or labels.
        image_size: height and width in pixels.
        multi_label: whether a picture has several labels instead of one class.
        options: arguments of `DataModule`.
    """

    def __init__(
        self,
        *,
        num_samples: int = 200,
        num_classes: int = 2,
        image_size: int = 64,
        multi_label: bool = False,
        **options: Any,
    ):
        super().__init__(**options)
        self.num_pictures, self.num_classes = num_samples, num_classes
        self.image_size, self.multi_label = image_size, multi_label

    def dataset(self, split: str) -> Samples | None:
        """The pictures, `(3, image_size, image_size)`; None for `val` and `test`."""
        if split != "train":
            return None
        random = torch.Generator().manual_seed(self.seed)
        targets: list[Any] = [index % self.num_classes for index in range(self.num_pictures)]
        if self.multi_label:
            targets = (torch.rand(self.num_pictures, self.num_classes, generator=random) < 0.4).int().tolist()
        colours = torch.rand(self.num_classes, 3, generator=random) * 255
        names = [f"{index:05d}" for index in range(self.num_pictures)]
        load = _Noise(targets, colours, self.image_size, self.seed)
        return Samples(names, targets, [f"class_{c}" for c in range(self.num_classes)], load)


class _Noise:
    """Makes picture `index`: the mean colour of its classes plus noise that depends on seed and index alone."""

    def __init__(self, targets: list[Any], colours: Tensor, size: int, seed: int):
        self.targets, self.colours, self.size, self.seed = targets, colours, size, seed

    def __call__(self, index: int) -> Tensor:
        target = self.targets[index]
        chosen = [target] if isinstance(target, int) else [c for c, on in enumerate(target) if on]
        colour = self.colours[chosen].mean(0) if chosen else torch.zeros(3)
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        noise = torch.randn(3, self.size, self.size, generator=random) * 40
        return (colour[:, None, None] + noise).clamp(0, 255).to(torch.uint8)
