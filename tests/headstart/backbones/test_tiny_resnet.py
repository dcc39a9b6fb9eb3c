import pytest
import torch
from sklearn.linear_model import LogisticRegression

from headstart.backbones.tiny_resnet import EMBEDDED, TinyResNet
from headstart.datasets.digits import Digits
from headstart.errors import UsageError


def test_contract():
    backbone = TinyResNet(weights=None).eval()
    assert backbone(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, backbone.num_features)
    groups = backbone.layer_groups()
    assert [group.name for group in groups] == ["stem", "stage1", "stage2", "stage3"]
    assert [n for group in groups for n, _ in group.named_parameters()] == [n for n, _ in backbone.named_parameters()]
    assert not backbone.pretrained


def test_shipped_weights_are_small_and_load_whole():
    assert EMBEDDED.stat().st_size < 2_000_000
    backbone = TinyResNet()
    assert backbone.pretrained
    assert not torch.equal(backbone.stage1.conv1.weight, TinyResNet(weights=None).stage1.conv1.weight)


def test_unknown_weights_are_refused():
    with pytest.raises(UsageError, match="digits"):
        TinyResNet(weights="digits")


def test_shipped_features_know_more_of_digits_than_random_ones():
    """Features are only worth shipping if a plain linear model on them reads digits the network never saw."""
    data = Digits(val_fraction=0.2, test_fraction=0.2, shots_per_class=5)
    data.setup()

    def score(backbone: TinyResNet) -> float:
        def features(split):
            pictures = torch.stack([backbone.preprocess(data.samples.load(i)) for i in data.splits[split]])
            with torch.inference_mode():
                return backbone.eval()(pictures).numpy(), [data.samples.targets[i] for i in data.splits[split]]

        return LogisticRegression(max_iter=2000).fit(*features("train")).score(*features("val"))

    torch.manual_seed(0)
    random = score(TinyResNet(weights=None))
    assert score(TinyResNet()) > random + 0.05
