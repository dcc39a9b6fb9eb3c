import numpy as np
import pytest
import torch

from headstart.datasets import letters
from headstart.datasets.letters import FONTS, LETTERS, Letters, draw, font_files
from headstart.errors import UsageError


def test_classes_are_letters_with_names_that_differ_in_more_than_case():
    data = Letters(num_samples=74, num_workers=0, val_fraction=0, test_fraction=0)
    data.setup()
    assert len(data.classes) == len(LETTERS) == 37
    assert len({name.lower() for name in data.classes}) == 37  # not every file system tells a from A
    assert not any(character.isdigit() for name in data.classes for character in name)
    assert data.class_counts() == [2] * 37
    assert data.samples.classes[data.samples.targets[26]] == "a_lower"
    assert np.array_equal(data.samples.load(26)[0], draw("a", 0, 26))


def test_a_picture_depends_on_seed_and_index_alone():
    few, many = (Letters(num_samples=n, seed=3).dataset("train") for n in (40, 60))
    assert all(torch.equal(few.load(i), many.load(i)) for i in range(40))
    assert not np.array_equal(draw("A", 0, 0), draw("A", 1, 0))
    assert not np.array_equal(draw("A", 0, 0), draw("A", 0, 1))


def test_pictures():
    samples = Letters(num_samples=74).dataset("train")
    for index in range(74):
        picture = samples.load(index)
        assert picture.shape == (3, 32, 32)
        assert picture.dtype == torch.uint8
        assert picture.max() > 90, index  # there is ink
        assert picture.float().std() > 20, index
    assert torch.stack([samples.load(index) for index in range(74)]).float().mean() < 128  # on a dark ground


@pytest.mark.parametrize("font", FONTS)
def test_every_font_is_there(font):
    assert any(path.stem.startswith(font) for path in font_files())


def test_every_font_has_every_letter():
    for number in range(len(font_files())):
        font = letters._font(number)
        missing = bytes(font.getmask("\uffff"))
        drawn = [bytes(font.getmask(letter)) for letter in LETTERS]
        assert missing not in drawn, font.path
        assert len(set(drawn)) == len(LETTERS), font.path


def test_too_few_for_every_class():
    with pytest.raises(UsageError, match="no readable training sample of class 't_lower'"):
        Letters(num_samples=36).setup()
