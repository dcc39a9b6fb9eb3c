import copy
from functools import partial

import pytest
import torch
from families import exhaustive_unless
from hydra.utils import instantiate
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.errors import UsageError
from headstart.finetuning.contrastive import Contrastive
from headstart.finetuning.feature_extraction import FeatureExtraction
from headstart.finetuning.full import Full
from headstart.finetuning.top_k import TopK
from headstart.optim.learning_rates import parameter_groups
from headstart.tasks.from_config import task_from_config


@pytest.fixture
def make_task(composed):
    """A task on the tiny network, or on any torchvision one whose random weights pass for pretrained."""

    def make(name=None, *overrides):
        cfg = composed(*overrides)
        if name:
            size, output = 32 if "vit" in name else 64, "pooled" if "vgg" in name else "penultimate"
            backbone = TorchvisionBackbone(name, weights=None, image_size=size, output=output)
            backbone.pretrained = True
        else:
            backbone = instantiate(cfg.model)
        return task_from_config(cfg, backbone, ["a", "b", "c"], class_weights=None)

    return make


def enter(strategy, task, stage=0):
    strategy.make_plan(task)
    strategy.progress.stage = stage
    strategy.apply(task)
    return strategy


def pictures(n=4, size=64, seed=0):
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


FROZEN = ["resnet18", "vgg11_bn", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "convnext_tiny", "vit_b_32"]


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_means_inference_mode(name, make_task):
    """Lightning's `freeze` leaves BatchNorm normalising with batch statistics in train mode, and dropout random."""
    task = make_task(name)
    enter(FeatureExtraction(), task)
    task.train()
    size = task.backbone.preprocess.image_size
    batch = pictures(4, size)
    trained = task.backbone(batch)
    task.eval()
    assert torch.equal(trained, task.backbone(batch)), "train() and eval() differ"
    # not to the bit: another batch size may take another kernel
    torch.testing.assert_close(trained[:1], task.backbone(batch[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", exhaustive_unless(["mobilenet_v3_small", "resnet18"], FROZEN))
def test_nothing_touches_what_is_frozen(name, make_task):
    """Neither momentum nor weight decay nor running statistics, in 50 steps below a group that learns.

    With the gradients of an earlier stage left in place (`zero_grad(set_to_none=False)`), or BatchNorm left in train
    mode as Lightning's `freeze` does, parameters or buffers drift.
    """
    task = make_task(name)
    task.training_step((pictures(2, 32), torch.tensor([0, 1])), 0).backward()  # an earlier stage's gradients
    enter(TopK(k=1), task)
    frozen, top = task.layer_groups[:-1], task.layer_groups[-1]
    before = copy.deepcopy(state_of(frozen)), copy.deepcopy(state_of([top]))
    groups = parameter_groups(task.layer_groups, task.head, partial(SGD, lr=0.01, momentum=0.9), task.lr_ratios)
    optimizer = SGD(groups, lr=0.01, momentum=0.9, weight_decay=0.5)
    for step in range(50):
        optimizer.zero_grad(set_to_none=False)
        task.training_step((pictures(2, 32, step), torch.tensor([0, 1])), 0).backward()
        optimizer.step()
    after = state_of(frozen), state_of([top])
    assert all(torch.equal(after[0][key], value) for key, value in before[0].items())
    assert not all(torch.equal(after[1][key], value) for key, value in before[1].items())


def state_of(groups):
    """Every parameter and buffer of some layer groups."""
    return {
        f"{name}.{key}": tensor.detach()
        for group in groups
        for name, module in group.modules.items()
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    }


@pytest.mark.parametrize(
    ("policy", "stats_move", "affine_learns"),
    [("frozen", False, False), ("affine", False, True), ("adapt_stats", True, False), ("train", True, True)],
)
def test_batch_norm_policy_where_the_backbone_learns(policy, stats_move, affine_learns, make_task):
    task = make_task()
    enter(Full(batch_norm=policy), task)
    norms = [m for m in task.backbone.modules() if isinstance(m, _BatchNorm)]
    before = [norm.running_mean.clone() for norm in norms]
    task.train()
    task.training_step((pictures(4, 32), torch.tensor([0, 1, 2, 0])), 0)
    moved = [not torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True)]
    assert all(moved) if stats_move else not any(moved)
    assert all(norm.weight.requires_grad == affine_learns for norm in norms)
    assert all(m.weight.requires_grad for m in task.backbone.modules() if isinstance(m, nn.Conv2d))


def test_unknown_batch_norm_policy():
    with pytest.raises(
        UsageError, match=r"batch_norm=freeze, did you mean 'frozen'\?: choose one of frozen, affine, ad"
    ):
        Full(batch_norm="freeze")


@pytest.mark.parametrize("strategy", [FeatureExtraction(), Full()])
def test_without_pretrained_weights_nothing_is_frozen(strategy, make_task):
    task = make_task(None, "model.weights=null")
    enter(strategy, task)
    assert all(p.requires_grad for p in task.parameters())
    assert all(m.training for m in task.backbone.modules())
    assert set(task.lr_ratios.values()) == {1.0}


def test_random_weights_are_trained_on_pairs_too(make_task):
    strategy = Contrastive()
    strategy.make_plan(make_task(None, "model.weights=null"))
    assert [stage.contrastive for stage in strategy.plan] == [True]


def test_applying_twice_changes_nothing(make_task):
    task = make_task()

    def state():
        return [p.requires_grad for p in task.parameters()], [m.training for m in task.modules()]

    enter(Full(), task)
    once = state()
    enter(Full(), task)
    assert state() == once
    enter(FeatureExtraction(), task)
    assert state() != once
    enter(Full(), task)
    assert state() == once


def test_frozen_modules_stay_in_eval_after_any_train_call(make_task):
    task = make_task()
    enter(FeatureExtraction(), task)
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
