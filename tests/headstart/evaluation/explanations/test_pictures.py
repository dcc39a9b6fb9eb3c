"""Heat maps of networks that use only one known place of the picture."""

import pytest
import torch
from torch import nn

from headstart.backbones.base import Backbone
from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.errors import UsageError
from headstart.evaluation.explanations.attribution import require_captum
from headstart.evaluation.explanations.pictures import explain

pytest.importorskip("captum")


class Patches(Backbone):
    """Features of 4 x 4 pixels each, as a map or as tokens behind a class token."""

    num_features = 3
    blocks = ["patches", "last"]

    def __init__(self, tokens: bool):
        super().__init__((0.0,) * 3, (1.0,) * 3)
        self.tokens = tokens
        self.patches = nn.Conv2d(3, 3, 4, 4, bias=False)
        self.last = nn.Linear(3, 3, bias=False) if tokens else nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.patches.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16)
            self.last.weight.copy_(torch.eye(3).view_as(self.last.weight))

    def forward(self, inputs):
        x = self.patches(self.normalise(inputs))
        if not self.tokens:
            return self.last(x).mean(dim=(2, 3))
        x = x.flatten(2).transpose(1, 2)
        # what the class token has seen of the others; as in a real one, the head is given it alone
        x = self.last(torch.cat([x.mean(dim=1, keepdim=True), x], dim=1))
        return x[:, 1:].mean(dim=1)


@pytest.mark.parametrize("tokens", [False, True], ids=["map", "tokens"])
def test_what_speaks_for_a_colour_is_where_it_is(tokens):
    """Class c is the amount of colour c; red is above left, green below right."""
    backbone = Patches(tokens)
    pictures = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    pictures[:, 0, :8, :8] = 255
    pictures[:, 1, 24:, 24:] = 255
    red, green = explain(nn.Sequential(backbone, nn.Identity()), backbone, pictures, [0, 1])
    assert red.shape == (32, 32)
    assert red.max() == green.max() == 1
    assert red[:8, :8].mean() > 0.8 > 0.01 > red[16:, 16:].max()
    assert green[24:, 24:].mean() > 0.8 > 0.01 > green[:16, :16].max()


def test_one_logit_speaks_for_both_classes():
    backbone = Patches(tokens=False)
    head = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0, 1.0, 0.0]]))
    pictures = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    pictures[:, 0, :8, :8], pictures[:, 1, 24:, 24:] = 255, 255
    first, second = explain(nn.Sequential(backbone, head), backbone, pictures, [0, 1])
    assert first.argmax() < second.argmax()


@pytest.mark.parametrize(("name", "size"), [("swin_t", 64), ("vit_b_32", 128), ("mobilenet_v2", 64), ("vgg11", 64)])
def test_real_networks_give_maps(name, size):
    backbone = TorchvisionBackbone(name, weights=None, image_size=size).eval()
    pictures = torch.randint(0, 255, (2, 3, size, size), dtype=torch.uint8)
    parameters = {key: value.clone() for key, value in backbone.state_dict().items()}
    maps = explain(nn.Sequential(backbone, nn.Linear(backbone.num_features, 3)).eval(), backbone, pictures, [0, 2])
    assert maps.shape == (2, size, size)
    assert maps.isfinite().all()
    assert 0 <= maps.min() <= maps.max() <= 1
    assert all(torch.equal(value, parameters[key]) for key, value in backbone.state_dict().items())
    assert not any(module._forward_hooks for module in backbone.modules())


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install -e "\.\[explain\]"'):
        require_captum()
