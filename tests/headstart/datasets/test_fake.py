import pickle

import pytest
import torch

from headstart.datasets.fake import Fake


def made(**options) -> Fake:
    data = Fake(num_workers=0, **options)
    data.setup()
    return data


def test_shapes_and_counts():
    data = made(num_samples=60, num_classes=3, image_size=16)
    assert data.classes == ["class_0", "class_1", "class_2"]
    assert sum(data.num_samples.values()) == 60
    assert data.class_counts() == [14, 14, 14]
    picture = data.samples.load(0)
    assert picture.shape == (3, 16, 16)
    assert picture.dtype == torch.uint8


def test_a_picture_depends_on_seed_and_index_alone():
    first, again, other = made(seed=0), made(seed=0, num_samples=150, batch_size=7), made(seed=1)
    assert torch.equal(first.samples.load(5), again.samples.load(5))
    assert not torch.equal(first.samples.load(5), first.samples.load(7))
    for channels in zip(first.samples.load(5), other.samples.load(5), strict=True):
        noise = torch.stack([channel.float().flatten() for channel in channels])
        assert noise.corrcoef()[0, 1].abs() < 0.2  # it differs, and not the colour alone
    load = first.samples.load
    assert torch.equal(pickle.loads(pickle.dumps(load))(5), load(5))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_classes_can_be_told_apart(seed):
    """By the nearest mean colour of the other split's classes."""
    data = made(num_classes=4, seed=seed, val_fraction=0.4)

    def colours(split):
        indices = data.splits[split]
        means = torch.stack([data.samples.load(i).float().mean((1, 2)) for i in indices])
        return means, torch.tensor([data.samples.targets[i] for i in indices])

    means, targets = colours("train")
    centres = torch.stack([means[targets == c].mean(0) for c in range(4)])
    means, targets = colours("val")
    assert (torch.cdist(means, centres).argmin(1) == targets).float().mean() > 0.95


def test_labels():
    data = made(multi_label=True, num_classes=5, num_samples=100, image_size=8, batch_size=10)
    data.connect(torch.Tensor.contiguous, torch.Tensor.contiguous)
    images, targets = next(iter(data.val_dataloader()))
    assert images.shape == (10, 3, 8, 8)
    assert targets.shape == (10, 5)
    assert set(targets.flatten().tolist()) == {0, 1}
    assert data.samples.multi_label
    assert made(multi_label=True, seed=0).samples.targets != made(multi_label=True, seed=1).samples.targets
