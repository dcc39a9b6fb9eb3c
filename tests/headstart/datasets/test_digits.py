import torch
from sklearn.datasets import load_digits

from headstart.datasets.digits import Digits


def test_pictures_are_those_of_scikit_learn():
    data = Digits(num_workers=0)
    data.setup()
    known = load_digits()
    assert len(data.samples) == 1797
    assert data.classes == [str(digit) for digit in range(10)]
    assert list(data.samples.targets) == known.target.tolist()
    for index in (0, 1000, 1796):
        picture = data.samples.load(index)
        assert picture.shape == (3, 8, 8)
        assert picture.dtype == torch.uint8
        for channel in picture:  # ink from 0 to 16 is grey from 0 to 255
            assert channel.tolist() == (known.images[index] * 255 / 16).round().tolist()
    assert max(data.samples.load(i).max() for i in range(20)) == 255


def test_shots():
    data = Digits(num_workers=0, shots_per_class=10, val_fraction=0.2, test_fraction=0.2)
    data.setup()
    assert data.class_counts() == [10] * 10
    assert data.num_samples == {"train": 100, "val": 360, "test": 359}  # a fifth of all, train is cut twice


def test_only_train():
    assert Digits().dataset("val") is None
    assert Digits().dataset("test") is None
