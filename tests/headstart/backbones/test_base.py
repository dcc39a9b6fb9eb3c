"""The backbone contract on toys: groups by position, preprocessing, normalisation."""

import pickle
from collections import OrderedDict
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

from headstart.backbones.base import Backbone, LayerGroup
from headstart.errors import UsageError
from headstart.inputs.images.preprocess import ImagePreprocess


class Toy(Backbone):
    num_features = 4

    def __init__(self, blocks: list[str]):
        super().__init__(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
        self.blocks = blocks
        layers = [("conv", nn.Conv2d(3, 4, 1)), ("relu", nn.ReLU()), ("a", nn.Conv2d(4, 4, 1))]
        self.net = nn.Sequential(OrderedDict([*layers, ("norm", nn.BatchNorm2d(4)), ("b", nn.Conv2d(4, 4, 1))]))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(self.normalise(inputs)).mean((2, 3))


def names_of(group: LayerGroup) -> list[str]:
    return [name for name, _ in group.named_parameters()]


def test_groups_reach_from_their_block_to_the_next():
    groups = Toy(["net.a", "net.b"]).layer_groups()
    assert {group.name: names_of(group) for group in groups} == {
        "stem": ["net.conv.weight", "net.conv.bias"],
        "a": ["net.a.weight", "net.a.bias", "net.norm.weight", "net.norm.bias"],
        "b": ["net.b.weight", "net.b.bias"],
    }
    assert list(groups[0].modules) == ["", "net", "net.conv", "net.relu"]


def test_stem_without_parameters_is_left_out():
    assert [group.name for group in Toy(["net.conv", "net.b"]).layer_groups()] == ["conv", "b"]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["net.a", "net.c"], "'net.c' is no module of Toy, did you mean 'net"),
        (["net.b", "net.a"], "out of order"),
        (["net.a", "net.a"], "out of order or repeated"),
        (["net.relu", "net.a"], r"without a parameter: \['relu'\]"),
    ],
)
def test_wrong_blocks_are_refused(blocks, message):
    with pytest.raises(ValueError, match=message):
        Toy(blocks).layer_groups()


def test_compiled_part_is_refused():
    toy = Toy(["net.a"])
    toy.net = torch.compile(toy.net)
    with pytest.raises(UsageError, match=r"module\.compile\(\)"):
        toy.layer_groups()


def test_compiled_in_place_is_fine():
    toy = Toy(["net.a", "net.b"])
    toy.net.compile()
    assert [group.name for group in toy.layer_groups()] == ["stem", "a", "b"]


def test_parameter_of_two_groups_is_refused():
    toy = Toy(["net.a", "net.b"])
    toy.net.b.weight = toy.net.a.weight
    with pytest.raises(ValueError, match=r"'net\.b\.weight' is shared by the layer groups a and b"):
        toy.layer_groups()


def test_freezing_drops_gradients_and_leaves_other_groups_alone():
    toy = Toy(["net.a", "net.b"])
    toy(torch.rand(2, 3, 4, 4)).sum().backward()
    stem, a, b = toy.layer_groups()
    stem.set_trainable(False)
    assert (stem.frozen, a.frozen, b.frozen) == (True, False, False)
    assert all(p.grad is None for p in stem.parameters())
    assert all(p.grad is not None for p in b.parameters())
    stem.set_trainable(True)
    assert not stem.frozen
    next(stem.parameters()).requires_grad_(False)
    assert not stem.frozen, "half frozen is not frozen"


def test_group_without_parameters_is_not_frozen():
    assert not LayerGroup("empty", {"relu": nn.ReLU()}).frozen


def test_normalise_uint8_and_float_agree():
    toy = Toy(["net.a"])
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    expected = (images.float() / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / toy.std
    torch.testing.assert_close(toy.normalise(images), expected)
    torch.testing.assert_close(toy.normalise(images / 255), expected)
    assert toy.half().normalise(images).dtype == torch.float16


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (3, 4, 4), (2, 4, 4, 3)])
def test_normalise_refuses_other_shapes(shape):
    with pytest.raises(UsageError, match="RGB"):
        Toy(["net.a"]).normalise(torch.zeros(shape, dtype=torch.uint8))


def test_normalise_refuses_integers():
    with pytest.raises(UsageError, match="int64"):
        Toy(["net.a"]).normalise(torch.zeros(2, 3, 4, 4, dtype=torch.int64))


@pytest.mark.parametrize("mode", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 90), (90, 40), (11, 13), (32, 32)])
def test_preprocess_makes_uint8_squares(mode, interpolation, size):
    picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    out = ImagePreprocess(32, 36, interpolation, mode)(picture)
    assert out.shape == (3, 32, 32)
    assert out.dtype == torch.uint8


def test_resize_modes_keep_what_they_promise():
    wide = torch.full((3, 20, 80), 100, dtype=torch.uint8)
    wide[:, :, :8] = 255  # white left edge
    crop, squash, letterbox = (ImagePreprocess(40, 40, resize_mode=m)(wide) for m in ("crop", "squash", "letterbox"))
    assert crop.max() < 120
    assert squash[:, :, 0].min() > 240
    assert squash.min() >= 95
    assert letterbox[:, 20, 0].min() > 240
    assert letterbox[:, :15].max() == 0
    assert letterbox[:, 25:].max() == 0


def test_preprocess_survives_saving():
    preprocess = ImagePreprocess(224, 256, "bicubic", "squash")
    assert ImagePreprocess(**asdict(preprocess)) == preprocess
    assert pickle.loads(pickle.dumps(preprocess)) == preprocess
    assert all(isinstance(value, int | str) for value in asdict(preprocess).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((224, 256, "cubic"), "interpolation='cubic'.*did you mean 'bicubic'"),
        ((224, 256, "bilinear", "stretch"), "resize_mode='stretch'.*squash"),
        ((0, 256), "image_size=0"),
        (("big", 256), "image_size='big'.*whole number"),
        ((224, 200), "resize_size=200 is smaller"),
    ],
)
def test_preprocess_refuses(arguments, message):
    with pytest.raises(UsageError, match=message):
        ImagePreprocess(*arguments)
