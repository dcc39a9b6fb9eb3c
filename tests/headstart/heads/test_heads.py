import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from headstart.errors import UsageError
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import MLPHead


def sizes(head: nn.Module) -> list[int]:
    """In- and output width of every linear layer, 512-1024-2 as [512, 1024, 2]."""
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


@pytest.mark.parametrize(
    ("choice", "in_features", "outputs", "expected"),
    [
        ("vgg_classifier", 25088, 10, [25088, 4096, 4096, 10]),
        ("dense_1024", 512, 10, [512, 1024, 10]),
        ("dense_256", 25088, 2, [25088, 256, 2]),
        ("dense_1024", 512, 1, [512, 1024, 1]),
        ("linear", 2048, 5, [2048, 5]),
        ("mlp", 128, 3, [128, 512, 3]),
    ],
)
def test_shapes_of_the_recipes(choice, in_features, outputs, expected, composed):
    with torch.device("meta"):
        head = instantiate(composed(f"head={choice}").head)(in_features=in_features, num_outputs=outputs)
        assert sizes(head) == expected
        assert head(torch.empty(4, in_features)).shape == (4, outputs)


def test_one_size_needs_no_brackets(composed):
    head = instantiate(composed("head=mlp", "head.hidden_sizes=64").head)(in_features=8, num_outputs=2)
    assert sizes(head) == [8, 64, 2]


def test_vgg_classifier_is_vggs_own(composed):
    """Layer by layer what torchvision's VGG ends in, so that its weights would fit."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        ours = instantiate(composed("head=vgg_classifier").head)(in_features=25088, num_outputs=1000)
        theirs = vgg16().classifier
    assert [type(layer) for layer in ours] == [type(layer) for layer in theirs]
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    assert [layer.p for layer in ours if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_dropout_and_norm_are_where_they_should_be():
    head = MLPHead(8, 2, [4, 4], dropout=0.3, norm="batch", activation="gelu")
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["Linear", "BatchNorm1d", "GELU", "Dropout"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in LinearHead(8, 2, dropout=0.5)] == ["Dropout", "Linear"]
    assert [type(layer).__name__ for layer in LinearHead(8, 2)] == ["Linear"]


def test_unknown_norm_and_activation_are_refused():
    with pytest.raises(UsageError, match=r"head.norm=batchnorm: choose one of none, batch, layer"):
        MLPHead(8, 2, [4], norm="batchnorm")
    with pytest.raises(UsageError, match=r"head.activation=rely: choose one of relu"):
        MLPHead(8, 2, [4], activation="rely")
