"""scikit-learn's handwritten digits: real pictures that ship inside a dependency."""

import torch
from sklearn.datasets import load_digits

from headstart.data.module import DataModule
from headstart.data.samples import Samples
from headstart.inputs.images.files import PictureStack


class Digits(DataModule):
    """1,797 handwritten digits of 8x8 pixels from 43 people (UCI optdigits, its test part; Alpaydin and Kaynak 1998).

    Offline: the pictures are part of scikit-learn. All of them come as `train`; `val` and `test` are cut from it.
    """

    def dataset(self, split: str) -> Samples | None:
        """The digits as `(3, 8, 8)` grey pictures; there is no split but `train`."""
        if split != "train":
            return None
        digits = load_digits()
        grey = torch.from_numpy(digits.images * 255 / 16).round().to(torch.uint8)  # ink is counted from 0 to 16
        names = [f"{index:04d}" for index in range(len(grey))]
        return Samples(names, digits.target.tolist(), [str(c) for c in range(10)], PictureStack(grey))
