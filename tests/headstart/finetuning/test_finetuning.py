import copy

import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.errors import UsageError
from headstart.finetuning.feature_extraction import FeatureExtraction
from headstart.finetuning.full import Full


@pytest.fixture
def make_task(composed):
    """A task on the tiny network, or on any torchvision one whose random weights pass for pretrained."""

    def make(name=None, *overrides):
        cfg = composed(*overrides)
        if name:
            backbone = TorchvisionBackbone(name, weights=None, image_size=64 if "vit" not in name else 32)
            backbone.pretrained = True
        else:
            backbone = instantiate(cfg.model)
        return instantiate(cfg.task)(backbone=backbone, classes=["a", "b", "c"])

    return make


def pictures(n=4, size=64, seed=0):
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


FROZEN = ["resnet18", "vgg11_bn", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "convnext_tiny", "vit_b_32"]


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_means_inference_mode(name, make_task):
    """Lightning's `freeze` leaves BatchNorm normalising with batch statistics in train mode, and dropout random."""
    task = make_task(name)
    FeatureExtraction().apply(task, epoch=0)
    task.train()
    size = task.backbone.preprocess.image_size
    batch = pictures(4, size)
    trained = task.backbone(batch)
    task.eval()
    assert torch.equal(trained, task.backbone(batch)), "train() and eval() differ"
    # not to the bit: another batch size may take another kernel
    torch.testing.assert_close(trained[:1], task.backbone(batch[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_nothing_touches_what_is_frozen(name, make_task):
    """Neither momentum nor weight decay nor running statistics, in 20 steps."""
    task = make_task(name)
    FeatureExtraction().apply(task, epoch=0)
    before = copy.deepcopy(task.backbone.state_dict())
    head = copy.deepcopy(task.head.state_dict())
    groups = [{"params": list(task.parameters())}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.5)
    for step in range(20):
        optimizer.zero_grad()
        task.training_step((pictures(4, 64, step), torch.tensor([0, 1, 2, 0])), 0).backward()
        optimizer.step()
    for key, tensor in task.backbone.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    assert not torch.equal(task.head.state_dict()["0.weight"], head["0.weight"])


@pytest.mark.parametrize(
    ("policy", "stats_move", "affine_learns"),
    [("frozen", False, False), ("adapt_stats", True, False), ("train", True, True)],
)
def test_batch_norm_policy_where_the_backbone_learns(policy, stats_move, affine_learns, make_task):
    task = make_task()
    Full(batch_norm=policy).apply(task, epoch=0)
    norms = [m for m in task.backbone.modules() if isinstance(m, _BatchNorm)]
    before = [norm.running_mean.clone() for norm in norms]
    task.train()
    task.training_step((pictures(4, 32), torch.tensor([0, 1, 2, 0])), 0)
    moved = [not torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True)]
    assert all(moved) if stats_move else not any(moved)
    assert all(norm.weight.requires_grad == affine_learns for norm in norms)
    assert all(m.weight.requires_grad for m in task.backbone.modules() if isinstance(m, nn.Conv2d))


def test_unknown_batch_norm_policy():
    with pytest.raises(UsageError, match=r"finetuning.batch_norm=freeze: choose one of frozen, adapt_stats, train"):
        Full(batch_norm="freeze")


@pytest.mark.parametrize("strategy", [FeatureExtraction(), Full()])
def test_without_pretrained_weights_nothing_is_frozen(strategy, make_task):
    task = make_task(None, "model.weights=null")
    strategy.apply(task, epoch=0)
    assert all(p.requires_grad for p in task.parameters())
    assert all(m.training for m in task.backbone.modules())
    assert set(task.lr_ratios.values()) == {1.0}


def test_applying_twice_changes_nothing(make_task):
    task = make_task()

    def state():
        return [p.requires_grad for p in task.parameters()], [m.training for m in task.modules()]

    Full().apply(task, epoch=0)
    once = state()
    Full().apply(task, epoch=1)
    assert state() == once
    FeatureExtraction().apply(task, epoch=0)
    assert state() != once
    Full().apply(task, epoch=0)
    assert state() == once


def test_frozen_modules_stay_in_eval_after_any_train_call(make_task):
    task = make_task()
    FeatureExtraction().apply(task, epoch=0)
    task.eval().train()
    assert not any(m.training for m in task.backbone.modules())
    assert task.head.training


class _DeepSpeedStrategy:
    pass


class _Trainer:
    strategy = _DeepSpeedStrategy()


def test_strategies_that_cannot_work_are_refused(make_task):
    with pytest.raises(UsageError, match="does not run under _DeepSpeedStrategy"):
        Full().setup(_Trainer(), make_task(), "fit")
