"""Generated pictures, for tests and for trying a configuration in seconds."""

from typing import Any

import torch
from torch import Tensor

from headstart.data.module import DataModule
from headstart.data.samples import Samples


class Fake(DataModule):
    """Pictures with noise around one colour per class: easy to learn, unless something is broken.

    With `numbers` each colour channel is as bright as the mean of its numbers, which go from 0 to 100; a single number
    is the brightness of all channels.

    Args:
        num_samples: number of pictures in all splits together.
        num_classes: number of classes, labels or numbers.
        image_size: height and width in pixels.
        multi_label: whether a picture has several labels instead of one class.
        numbers: whether a picture has numbers instead of classes.
        options: arguments of `DataModule`.
    """

    def __init__(
        self,
        *,
        num_samples: int = 200,
        num_classes: int = 2,
        image_size: int = 64,
        multi_label: bool = False,
        numbers: bool = False,
        **options: Any,
    ):
        super().__init__(**options)
        self.num_pictures, self.num_classes = num_samples, num_classes
        self.image_size, self.multi_label, self.numbers = image_size, multi_label, numbers

    def dataset(self, split: str) -> Samples | None:
        """The pictures, `(3, image_size, image_size)`; None for `val` and `test`."""
        if split != "train":
            return None
        random = torch.Generator().manual_seed(self.seed)
        if self.numbers:
            return self._with_numbers(random)
        targets: list[Any] = [index % self.num_classes for index in range(self.num_pictures)]
        if self.multi_label:
            targets = (torch.rand(self.num_pictures, self.num_classes, generator=random) < 0.4).int().tolist()
        colours = torch.rand(self.num_classes, 3, generator=random) * 255
        load = _Noise(targets, colours, self.image_size, self.seed)
        return Samples(self._names(), targets, [f"class_{c}" for c in range(self.num_classes)], load)

    def _with_numbers(self, random: torch.Generator) -> Samples:
        values = torch.rand(self.num_pictures, self.num_classes, generator=random) * 100
        load = _Bright(values, self.image_size, self.seed)
        names = [f"number_{c}" for c in range(self.num_classes)]
        return Samples(self._names(), values.tolist(), names, load, numbers=True)

    def _names(self) -> list[str]:
        return [f"{index:05d}" for index in range(self.num_pictures)]


class _Noise:
    """Makes picture `index`: the mean colour of its classes plus noise that depends on seed and index alone."""

    def __init__(self, targets: list[Any], colours: Tensor, size: int, seed: int):
        self.targets, self.colours, self.size, self.seed = targets, colours, size, seed

    def __call__(self, index: int) -> Tensor:
        target = self.targets[index]
        chosen = [target] if isinstance(target, int) else [c for c, on in enumerate(target) if on]
        colour = self.colours[chosen].mean(0) if chosen else torch.zeros(3)
        return _noisy(colour, self.size, self.seed, index)


class _Bright:
    """Makes picture `index`: channels as bright as its numbers, plus noise that depends on seed and index alone."""

    def __init__(self, values: Tensor, size: int, seed: int):
        self.values, self.size, self.seed = values, size, seed

    def __call__(self, index: int) -> Tensor:
        values = self.values[index]
        channels = [values[c::3] if len(values[c::3]) else values for c in range(3)]
        colour = 2.55 * torch.stack([channel.mean() for channel in channels])
        return _noisy(colour, self.size, self.seed, index)


def _noisy(colour: Tensor, size: int, seed: int, index: int) -> Tensor:
    random = torch.Generator().manual_seed(seed * 1_000_003 + index)
    noise = torch.randn(3, size, size, generator=random) * 40
    return (colour[:, None, None] + noise).clamp(0, 255).to(torch.uint8)
