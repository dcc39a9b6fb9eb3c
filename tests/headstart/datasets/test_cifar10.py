import hashlib
import pickle
import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from torchvision.datasets import CIFAR10 as TV

from headstart.datasets.cifar10 import CIFAR10
from headstart.errors import UsageError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """`cifar-10-batches-py` with 40 training and 20 test pictures instead of 60,000, and the checksums to match."""
    folder = tmp_path / TV.base_folder
    folder.mkdir()

    def put(name: str, content: dict) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(seed: int) -> dict:
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 3072), np.uint8)
        pixels[:, 0] = [i % 10 for i in range(20)]  # the class, in the first red pixel
        return {"data": pixels, "labels": [i % 10 for i in range(20)]}

    monkeypatch.setattr(TV, "train_list", [[name, put(name, batch(i))] for i, name in enumerate(("one", "two"))])
    monkeypatch.setattr(TV, "test_list", [["test_batch", put("test_batch", batch(9))]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": put("batches.meta", {"label_names": CLASSES})}
    monkeypatch.setattr(TV, "meta", meta)
    return tmp_path


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    def refuse(url, *args, **kwargs):
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(torchvision.datasets.utils.urllib.request, "urlopen", refuse)


def test_splits_and_pictures(root):
    data = CIFAR10(root=str(root), val_fraction=0.25, test_fraction=0, num_workers=0)
    data.prepare_data()
    data.setup()
    data.connect(torch.Tensor.contiguous, torch.Tensor.contiguous)
    assert data.classes == CLASSES
    assert data.num_samples == {"train": 30, "val": 10, "test": 20}
    assert [data.samples.names[i] for i in data.splits["test"]] == [f"test/{i:05d}" for i in range(20)]
    assert all(data.samples.names[i].startswith("train/") for s in ("train", "val") for i in data.splits[s])
    for split in data.splits:
        for images, targets in data.loader(split):
            assert images.dtype == torch.uint8
            assert images.shape[1:] == (3, 32, 32)
            assert torch.equal(images[:, 0, 0, 0].long(), targets)


def test_channels_and_rows_are_where_they_belong(root):
    """The file has 1024 reds row by row, then the greens, then the blues."""
    raw = pickle.loads((root / TV.base_folder / "one").read_bytes())["data"][3].reshape(3, 32, 32)
    assert np.array_equal(CIFAR10(root=str(root)).dataset("train").load(3), raw)


def test_no_network(tmp_path):
    with pytest.raises(UsageError) as caught:
        CIFAR10(root=str(tmp_path / "cifar")).prepare_data()
    told = str(caught.value)
    assert TV.url in told
    assert str(tmp_path / "cifar" / "cifar-10-python.tar.gz") in told
    assert "data.root=<folder with cifar-10-batches-py>" in told


def test_damaged_file_is_not_unpickled(root):
    (root / TV.base_folder / "two").write_bytes(b"damaged")
    with pytest.raises(UsageError, match="could not be downloaded"):
        CIFAR10(root=str(root)).prepare_data()
