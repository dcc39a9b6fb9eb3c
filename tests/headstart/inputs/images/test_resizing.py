"""Compares the resize in an export with `ImagePreprocess`, for odd and even remainders of the crop."""

import warnings
from itertools import product

import numpy as np
import pytest
import torch

from headstart.export.onnx_file import load, write
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.inputs.images.resizing import middle, resize

SIZES = [(374, 500), (501, 300), (230, 257), (100, 90), (61, 64), (64, 64), (50, 203)]
KINDS = list(product(("crop", "squash", "letterbox"), ("bilinear", "bicubic")))


def pictures():
    random = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=random) for size in SIZES]


@pytest.mark.parametrize(("mode", "interpolation"), KINDS)
def test_in_torch_it_is_the_same_to_the_bit(mode, interpolation):
    preprocess = ImagePreprocess(56, 64, interpolation, mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(resize)
    module = preprocess.as_module()
    for picture in pictures():
        expected = preprocess(picture)
        assert torch.equal(module(picture[None])[0], expected)
        ready = picture[None].contiguous(memory_format=torch.channels_last)
        assert torch.equal(scripted(ready, mode, interpolation == "bicubic", 56, 64)[0], expected)


@pytest.mark.parametrize(("mode", "interpolation"), KINDS)
def test_in_onnx_it_is_the_same_but_for_rounding(mode, interpolation, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")

    class AsFloat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.resize = preprocess.as_module()

        def forward(self, batch):
            return self.resize(batch).float()

    preprocess = ImagePreprocess(56, 64, interpolation, mode)
    example, axes = preprocess.export_example(raw=True)
    write(
        AsFloat(),
        example,
        axes,
        tmp_path / "resize.onnx",
        {"input": {"name": "pictures"}, "output": {"name": "resized"}},
    )
    run = load(tmp_path / "resize.onnx", None)
    for picture in pictures():
        expected = preprocess(picture).float()
        difference = (run(torch.stack([picture, picture]))[1] - expected).abs()
        assert difference.max() <= (1 if interpolation == "bilinear" else 3)
        assert difference.mean() < 0.1


def test_the_middle_is_that_of_torchvision():
    assert [middle(rest) for rest in range(200)] == [round(rest / 2) for rest in range(200)]
    assert np.array_equal([middle(rest) for rest in range(9)], [0, 0, 1, 2, 2, 2, 3, 4, 4])
