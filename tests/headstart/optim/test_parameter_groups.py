from functools import partial

import pytest
from torch import nn
from torch.optim import AdamW

from headstart.backbones.tiny_resnet import TinyResNet
from headstart.errors import UsageError
from headstart.optim.learning_rates import lr_ratios, parameter_groups


@pytest.fixture
def backbone():
    return TinyResNet(weights=None)


def groups_of(backbone, optimizer=None, decay=0.5):
    head = nn.Linear(128, 3)
    optimizer = optimizer or partial(AdamW, lr=0.1, weight_decay=0.3)
    layers = backbone.layer_groups()
    return head, parameter_groups(layers, head, optimizer, lr_ratios(layers, 0.1, decay))


def test_rates_fall_towards_the_stem(backbone):
    ratios = lr_ratios(backbone.layer_groups(), 0.1, 0.5)
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
        lr_ratios(backbone.layer_groups(), ratio, decay)
