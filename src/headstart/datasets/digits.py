"""Handwritten digits that are part of scikit-learn: real pictures without a download."""

import torch
from sklearn.datasets import load_digits

from headstart.data.module import DataModule
from headstart.data.samples import Samples
from headstart.inputs.images.files import PictureStack


class Digits(DataModule):
    """1,797 handwritten digits of 8x8 pixels from 43 people (UCI optdigits, its test part; Alpaydin and Kaynak 1998).

    All pictures are in `train`; `val` and `test` are cut from it.
    """

    def dataset(self, split: str) -> Samples | None:
        """The digits as grey pictures `(3, 8, 8)`; None for `val` and `test`."""
        if split != "train":
            return None
        digits = load_digits()
        grey = torch.from_numpy(digits.images * 255 / 16).round().to(torch.uint8)  # the values are from 0 to 16
        names = [f"{index:04d}" for index in range(len(grey))]
        return Samples(names, digits.target.tolist(), [str(c) for c in range(10)], PictureStack(grey))
