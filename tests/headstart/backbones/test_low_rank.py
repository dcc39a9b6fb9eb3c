"""Low-rank updates of a transformer."""

import copy

import pytest
import torch
from torch import nn

from headstart.backbones.low_rank import LowRank, add_low_rank, low_rank_parameters, merge, merged
from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.errors import UsageError
from headstart.tasks import checkpoint
from headstart.training.run import train

VIT = ["model=vit_b_32", "model.weights=null", "model.image_size=32", "model.lora_rank=2"]


def attention():
    torch.manual_seed(0)
    return nn.Sequential(nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8))


def through(network, inputs):
    return network[1](network[0](inputs, inputs, inputs)[0])


def trained(network):
    """As after some training: the updates are no longer zero."""
    for parameter in low_rank_parameters(network):
        nn.init.normal_(parameter, std=0.3)


def test_updates_begin_at_zero_and_are_small():
    plain, inputs = attention(), torch.randn(3, 5, 8)
    updated = copy.deepcopy(plain)
    add_low_rank(updated, 2)
    assert torch.equal(through(updated, inputs), through(plain, inputs))
    assert sum(p.numel() for p in low_rank_parameters(updated)) == 2 * ((24 + 8) + (8 + 8) + (8 + 8))
    trained(updated)
    assert not torch.allclose(through(updated, inputs), through(plain, inputs), atol=1e-2)


def test_an_update_has_the_rank_and_learns():
    update = LowRank(torch.zeros(6, 4), 2)
    nn.init.normal_(update.up)
    assert torch.linalg.matrix_rank(update(torch.zeros(6, 4)).detach()) == 2
    network = attention()
    add_low_rank(network, 2)
    trained(network)
    through(network, torch.randn(3, 5, 8)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in low_rank_parameters(network))


def test_merged_weights_compute_the_same_without_updates():
    plain, inputs = attention(), torch.randn(3, 5, 8)
    updated = copy.deepcopy(plain)
    add_low_rank(updated, 2)
    trained(updated)
    plain.load_state_dict(merged(updated.state_dict()))
    expected = through(updated, inputs)
    assert torch.allclose(through(plain, inputs), expected, atol=1e-6)
    merge(updated)
    assert torch.allclose(through(updated, inputs), expected, atol=1e-6)
    assert updated.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])
def test_torchvisions_transformers_take_updates(name):
    backbone = TorchvisionBackbone(name, weights=None, image_size=32 if name == "vit_b_32" else None, lora_rank=2)
    size = backbone.preprocess.image_size
    pictures = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    groups = {id(p) for group in backbone.layer_groups() for p in group.parameters()}
    assert {id(p) for p in low_rank_parameters(backbone)} <= groups
    with torch.no_grad():
        before = backbone.eval()(pictures)
        trained(backbone)
        assert not torch.allclose(backbone(pictures), before, atol=1e-3)


@pytest.mark.parametrize(("name", "rank", "message"), [
    ("resnet18", 8, r"no attention with linear layers: use finetuning=bitfit"),
    ("vit_b_32", 0, r"lora_rank=0: give a whole number"),
])  # fmt: skip
def test_mistakes(name, rank, message):
    with pytest.raises(UsageError, match=message):
        TorchvisionBackbone(name, weights=None, lora_rank=rank)


@pytest.mark.slow
def test_a_run_trains_updates_and_head_alone_and_goes_on_elsewhere(quick, tmp_path):
    start = TorchvisionBackbone("vit_b_32", weights=None, image_size=32)
    torch.save(start.net.state_dict() | {"heads.head.weight": torch.zeros(1), "heads.head.bias": torch.zeros(1)},
               tmp_path / "start.pth")  # fmt: skip
    words = [word for word in VIT if "weights" not in word]
    train(quick(*words, f"model.weights={tmp_path / 'start.pth'}", "finetuning=lora", "data.image_size=32",
                "trainer.limit_train_batches=3", "trainer.max_epochs=1", "task.backbone_lr_ratio=1"))  # fmt: skip
    task, _ = checkpoint.load_task(tmp_path / "run/checkpoints/best.ckpt")
    after, before = task.backbone.net.state_dict(), start.net.state_dict()
    for key, value in before.items():
        owner, _, name = key.rpartition(".")
        whole = after.get(f"{owner}.parametrizations.{name}.original", after.get(key))
        assert torch.equal(whole, value), f"{key} is frozen"
    assert any(value.abs().sum() > 0 for key, value in after.items() if key.endswith(".0.up"))
    task.eval()
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    elsewhere = TorchvisionBackbone("vit_b_32", weights=str(tmp_path / "run"), image_size=32).eval()
    with torch.no_grad():
        assert torch.allclose(elsewhere(pictures), task.backbone(pictures), atol=1e-4)


def test_the_strategy_wants_updates(quick):
    with pytest.raises(UsageError, match=r"add model.lora_rank=8"):
        train(quick("finetuning=lora"))


@pytest.mark.parametrize(
    "change",
    [
        lambda s, name: s.update({f"{name}.up": torch.ones(10**6, 2), f"{name}.down": torch.ones(2, 10**6)}),
        lambda s, name: s.update({f"{name}.up": torch.ones(8, 3)}),
        lambda s, name: s.pop(f"{name}.down"),
    ],
)
def test_an_update_in_a_file_that_does_not_fit_its_matrix_is_refused(change):
    """The product of the large ones would have four terabytes."""
    network = attention()
    add_low_rank(network, 2)
    state = network.state_dict()
    change(state, "1.parametrizations.weight.0")
    with pytest.raises(UsageError, match=r"'1\.parametrizations\.weight\.original' has no low-rank update of the"):
        merged(state)
