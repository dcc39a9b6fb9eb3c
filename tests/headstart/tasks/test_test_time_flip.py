"""A picture and its mirror image, in tests and predictions alone."""

import pytest
import torch

from headstart.errors import UsageError
from headstart.inference.classifier import Classifier
from headstart.training.build import build_data, build_task


@pytest.fixture
def task(quick):
    cfg = quick("test_time=flip")
    return build_task(cfg, build_data(cfg)).eval()


@torch.no_grad()
def test_mirror_images_are_one_to_tests_and_predictions(task):
    pictures = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    mirrored = pictures.flip(-1)
    assert not torch.allclose(task(pictures), task(mirrored), atol=1e-3), "the network itself tells them apart"
    assert torch.equal(task.predict_step(pictures, 0), task.predict_step(mirrored, 0))
    expected = task.objective.probabilities((task(pictures) + task(mirrored)) / 2)
    assert torch.allclose(task.predict_step(pictures, 0), expected)
    assert torch.allclose(Classifier(task)(pictures), expected), "and what is exported"
    task.test_time = None
    assert torch.equal(task.predict_step(pictures, 0), task.objective.probabilities(task(pictures)))


def test_only_pictures(task):
    with pytest.raises(UsageError, match=r"test_time=flip.* only pictures"):
        task.tested_logits(torch.zeros(4, 7))
