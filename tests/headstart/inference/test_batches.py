from dataclasses import dataclass
from itertools import count

import pytest
import torch
from PIL import Image

from headstart.inference.batches import batches
from headstart.inputs.base import Preprocess, Unlabelled
from headstart.inputs.images.decode import read_picture
from headstart.inputs.images.preprocess import ImagePreprocess

PREPROCESS = ImagePreprocess(16, 20)


def in_batches(names, preprocess, *options):
    return batches(map(Unlabelled, names), preprocess, *options)


def reasons_of(batch):
    return [sample.reason for sample in batch.samples]


@pytest.fixture
def files(tmp_path):
    found = []
    for index in range(7):
        path = tmp_path / f"{index}.png"
        if index in (2, 5):
            path.write_text("no picture")
        else:
            Image.new("RGB", (30 + index, 24), (index * 30, 0, 255)).save(path)
        found.append(str(path))
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
def test_order_pictures_and_reasons(files, num_workers):
    found = list(in_batches(files, PREPROCESS, 3, num_workers))
    assert [[sample.name for sample in batch.samples] for batch in found] == [files[:3], files[3:6], files[6:]]
    reasons = [reason for batch in found for reason in reasons_of(batch)]
    assert [reason is not None for reason in reasons] == [False, False, True, False, False, True, False]
    assert reasons[2] == "not a picture (text?)"
    pictures = torch.cat([batch.inputs for batch in found])
    expected = [PREPROCESS(read_picture(file, PREPROCESS.decode_side)) for file in files if file[-5] not in "25"]
    assert torch.equal(pictures, torch.stack(expected))


def test_a_batch_without_any_picture(files):
    (batch,) = in_batches([files[2], "gone.jpg"], PREPROCESS, 3, 0)
    assert batch.inputs is None
    assert reasons_of(batch) == ["not a picture (text?)", "cannot be opened (No such file or directory)"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_names_are_asked_for_when_they_are_due(files, num_workers):
    asked = count()

    def endless():
        while True:
            next(asked)
            yield files[0]

    found = iter(in_batches(endless(), PREPROCESS, 2, num_workers))
    next(found)
    next(found)
    assert next(asked) <= 2 * (2 + 3 * num_workers)


def test_a_strip_is_refused_instead_of_enlarged_to_gigabytes(tmp_path):
    Image.new("L", (60_000, 1)).save(tmp_path / "strip.png")
    (batch,) = in_batches([str(tmp_path / "strip.png")], ImagePreprocess(224, 256), 1, 0)
    assert reasons_of(batch) == ["too long for its width: 60000 x 1 pixels"]


@dataclass(frozen=True)
class Letters(Preprocess):
    """Texts as the numbers of their letters."""

    def __call__(self, raw):
        return torch.tensor([ord(letter) for letter in raw])

    def lengths(self, raw):
        return [len(text) for text in raw]

    def collate(self, inputs):
        return torch.nn.utils.rnn.pad_sequence(list(inputs), batch_first=True)

    def example(self, number):
        raise NotImplementedError

    def describe(self, raw=False):
        raise NotImplementedError


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_of_different_lengths_are_batched_by_length_and_know_their_place(num_workers):
    texts = ["x" * length for length in (3, 9, 1, 8, 2, 7, 5)]
    samples = [Unlabelled(str(place), text) for place, text in enumerate(texts)]
    samples.insert(2, Unlabelled("bad", reason="empty"))
    found = list(batches(samples, Letters(), 2, num_workers))
    assert [0 if batch.inputs is None else batch.inputs.shape[1] for batch in found] == [9, 7, 3, 1]
    places = [place for batch in found for place in batch.places]
    assert sorted(places) == list(range(8))
    assert [sample for batch in found for sample in batch.samples] == [
        Unlabelled(samples[place].name, reason=samples[place].reason) for place in places
    ]
