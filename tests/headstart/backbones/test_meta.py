"""A pass on the meta device leaves a network as it was."""

import pytest
import torch
from torch import nn

from headstart.backbones.meta import on_meta


class Shared(nn.Module):
    """One layer in two places."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.second = nn.Sequential(self.first[0], nn.Linear(4, 4, bias=False))

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("shape", [(2, 4), (2, 5)], ids=["pass", "error"])
def test_tensors_are_the_same_after_a_pass_on_meta(shape):
    network = Shared().eval()
    before = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    try:
        with torch.no_grad(), on_meta(network):
            assert network(torch.empty(shape, device="meta")).is_meta
    except RuntimeError:
        assert shape == (2, 5)
    assert {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()} == before
    assert isinstance(network.first[0].weight, nn.Parameter)
