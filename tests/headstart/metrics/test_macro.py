"""Means over classes equal those of torchmetrics."""

import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics import classification as reference

from headstart.metrics.macro import MacroAccuracy, MacroF1


@pytest.mark.parametrize("present", [5, 3])
def test_equal_to_torchmetrics(present):
    """Also if some classes do not occur."""
    random = torch.Generator().manual_seed(present)
    ours = MetricCollection({"acc": MacroAccuracy(5), "f1": MacroF1(5)})
    theirs = MetricCollection(
        {
            "acc": reference.MulticlassAccuracy(5, average="macro"),
            "f1": reference.MulticlassF1Score(5, average="macro"),
        }
    )
    for size in (7, 16, 1):
        probabilities = torch.rand(size, 5, generator=random)
        probabilities[:, present:] = 0
        targets = torch.randint(0, present, (size,), generator=random)
        ours.update(probabilities, targets)
        theirs.update(probabilities, targets)
    expected = theirs.compute()
    assert {name: value.item() for name, value in ours.compute().items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}
    )
    ours.reset()
    assert ours["acc"].actual.sum() == 0


def test_many_classes_take_little_memory():
    metric = MacroF1(1_000_000)  # a matrix of all pairs would not fit into any memory
    metric.update(torch.eye(2, 1_000_000), torch.tensor([0, 1]))
    assert metric.compute() == 1
