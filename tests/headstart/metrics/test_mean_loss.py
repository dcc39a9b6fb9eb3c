import math

import pytest
import torch
from torchmetrics import MeanMetric

from headstart.metrics.mean_loss import MeanLoss


def test_it_is_the_weighted_mean_to_the_bit():
    ours, theirs = MeanLoss(), MeanMetric()
    generator = torch.Generator().manual_seed(0)
    for weight in (32, 32, torch.tensor(7.5), 1):
        loss = torch.rand((), generator=generator)
        ours.update(loss, weight)
        theirs.update(loss, weight)
    assert torch.equal(ours.compute(), theirs.compute())
    ours.persistent(True)
    theirs.persistent(True)
    assert ours.state_dict() == theirs.state_dict()  # so checkpoints with MeanMetric still load


def test_a_loss_that_is_not_a_number_is_not_hidden():
    metric = MeanLoss()
    for loss in (0.5, math.nan):
        metric.update(torch.tensor(loss), 4)
    assert math.isnan(metric.compute())


def test_half_precision_is_added_in_float():
    metric = MeanLoss()
    for _ in range(3000):
        metric.update(torch.tensor(1.0, dtype=torch.float16), 1)
    assert metric.compute().item() == pytest.approx(1.0)
