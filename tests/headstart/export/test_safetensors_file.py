"""Saves only the weights, and loads them into a new network."""

import pytest
import torch
import torchvision

from headstart.export.safetensors_file import load, write


@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5"])  # the second asks for a version of its file
def test_what_is_read_back_is_what_was_written(name, tmp_path):
    model = torchvision.models.get_model(name, weights=None, num_classes=3).eval()
    pictures = torch.rand(2, 3, 64, 64)
    write(model, pictures, {}, tmp_path / "weights.safetensors", {})
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "weights.safetensors", model)(pictures), model(pictures))
