"""CIFAR-10."""

from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from headstart.data.module import DataModule
from headstart.data.samples import Samples
from headstart.errors import UsageError
from headstart.inputs.images.files import PictureStack


class CIFAR10(DataModule):
    """60,000 pictures of 32x32 pixels in ten classes (Krizhevsky 2009, Learning Multiple Layers of Features, ch. 3).

    torchvision downloads the archive and checks its MD5 before it unpickles anything. `test` is the official test set;
    `val` is cut from the official training set.

    Args:
        root: folder for `cifar-10-batches-py`.
        options: arguments of `DataModule`.
    """

    def __init__(self, *, root: str, **options: Any):
        super().__init__(**options)
        self.root = Path(root).expanduser()

    def prepare_data(self) -> None:
        """Downloads the archive unless it exists.

        Raises:
            UsageError: it cannot be downloaded, or is damaged.
        """
        source = datasets.CIFAR10
        try:
            source(self.root, download=True)
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"CIFAR-10 could not be downloaded ({error}). Get {source.url} in another way and put it at "
                f"{self.root.absolute() / source.filename}, or give data.root=<folder with {source.base_folder}>"
            ) from error

    def dataset(self, split: str) -> Samples | None:
        """The official training or test pictures, `(3, 32, 32)`; None for `val`, which does not exist."""
        if split == "val":
            return None
        found = datasets.CIFAR10(self.root, train=split == "train")
        pictures = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        names = [f"{split}/{index:05d}" for index in range(len(found))]
        return Samples(names, list(found.targets), list(found.classes), PictureStack(pictures))
