import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from headstart.backbones.tiny_resnet import TinyResNet
from headstart.errors import UsageError
from headstart.optim import build_scheduler, parameter_groups, rate_ratios, warmup_cosine


@pytest.fixture
def backbone():
    return TinyResNet(weights=None)


def groups_of(backbone, optimizer=None, decay=0.5):
    head = nn.Linear(128, 3)
    optimizer = optimizer or partial(AdamW, lr=0.1, weight_decay=0.3)
    layers = backbone.layer_groups()
    return head, parameter_groups(layers, head, optimizer, rate_ratios(layers, 0.1, decay))


def test_rates_fall_towards_the_stem(backbone):
    ratios = rate_ratios(backbone.layer_groups(), 0.1, 0.5)
    assert list(ratios) == ["stem", "stage1", "stage2", "stage3"]
    assert list(ratios.values()) == pytest.approx([0.0125, 0.025, 0.05, 0.1])


def test_every_parameter_is_in_exactly_one_named_group(backbone):
    """By identity: two zero biases are equal by value, and Lightning's own filter drops one of them."""
    head, groups = groups_of(backbone)
    placed = [id(p) for group in groups for p in group["params"]]
    assert sorted(placed) == sorted(id(p) for p in [*backbone.parameters(), *head.parameters()])
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    assert names[-2:] == ["head", "head/no_decay"]


def test_rates_and_decay_of_the_groups(backbone):
    _, groups = groups_of(backbone)
    by_name = {group["name"]: group for group in groups}
    assert by_name["head"]["lr"] == 0.1
    assert by_name["stage3"]["lr"] == pytest.approx(0.01)
    assert by_name["stem/no_decay"]["lr"] == pytest.approx(0.00125)
    optimizer = AdamW(groups, lr=0.1, weight_decay=0.3)
    for group in optimizer.param_groups:
        flat = group["name"].endswith("/no_decay")
        assert group["weight_decay"] == (0.0 if flat else 0.3)
        assert all((p.ndim <= 1) == flat for p in group["params"])


@pytest.mark.parametrize(
    ("ratio", "decay", "message"),
    [(0, 1, "finetuning=feature_extraction"), (-1, 1, "above 0"), (0.1, 0, "layer_lr_decay=0"), (0.1, 2, "up to 1")],
)
def test_impossible_rates_are_refused(ratio, decay, message, backbone):
    with pytest.raises(UsageError, match=message):
        rate_ratios(backbone.layer_groups(), ratio, decay)


def run_schedule(factory, steps, total):
    optimizer = SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr, "name": str(lr)} for lr in (0.1, 1.0)], lr=1)
    scheduler, interval = build_scheduler(factory, optimizer, total)
    trace = []
    for _ in range(steps):
        trace.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return torch.tensor(trace, dtype=torch.float64), interval


def test_a_null_horizon_is_the_run_in_steps():
    trace, interval = run_schedule(partial(CosineAnnealingLR, T_max=None), 11, 10)
    expected = torch.tensor([(1 + math.cos(math.pi * t / 10)) / 2 for t in range(11)], dtype=torch.float64)
    assert interval == "step"
    torch.testing.assert_close(trace[:, 1], expected)
    torch.testing.assert_close(trace[:, 0], expected * 0.1)


def test_a_given_horizon_counts_epochs():
    assert run_schedule(partial(CosineAnnealingLR, T_max=3), 1, 10)[1] == "epoch"
    trace, interval = run_schedule(partial(StepLR, step_size=2, gamma=0.1), 4, 10)
    assert interval == "epoch"
    torch.testing.assert_close(trace[:, 1], torch.tensor([1, 1, 0.1, 0.1], dtype=torch.float64))


def test_total_steps_are_steps_also_when_given():
    trace, interval = run_schedule(partial(warmup_cosine, total_steps=4, warmup=0.0), 5, 10)
    assert interval == "step"
    assert trace[-1, 1].item() == pytest.approx(0.0)


def test_onecycle_keeps_the_groups_ratio():
    trace, interval = run_schedule(partial(OneCycleLR, max_lr=None, total_steps=None), 10, 10)
    assert interval == "step"
    assert trace[:, 1].max().item() == pytest.approx(1.0)
    torch.testing.assert_close(trace[:, 0], trace[:, 1] * 0.1)


def test_warmup_cosine_against_closed_form():
    trace, _ = run_schedule(partial(warmup_cosine, total_steps=None, warmup=0.2, final=0.1), 12, 10)
    rise = [1 / 3, 2 / 3]
    fall = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)]
    torch.testing.assert_close(trace[:, 1], torch.tensor([*rise, *fall, 0.1], dtype=torch.float64))


def test_plateau_watches_epochs():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1)
    assert build_scheduler(partial(ReduceLROnPlateau, mode="max"), optimizer, 10)[1] == "epoch"
