"""A residual network of 0.3 million parameters for 32-pixel pictures, with weights that ship with the project.

The weights come from `python src/train.py experiment=pretrain_letters`: rendered letters, no digits.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.backbones.weights import load_backbone_weights
from headstart.inputs.images.preprocess import ImagePreprocess

EMBEDDED = Path(__file__).parent / "weights" / "tiny_resnet_letters.safetensors"


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, https://arxiv.org/abs/1512.03385, figure 2)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))
        self.shortcut.append(nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class TinyResNet(Backbone):
    """Pictures `(batch, 3, 32, 32)` -> features `(batch, 128)`.

    Args:
        weights: `letters` (shipped with the project), a file, the folder of a run, or None for random weights.
        image_size: side of the square input in pixels.
        resize_mode: how a picture becomes square: `crop`, `squash` or `letterbox`.
    """

    num_features = 128
    blocks = ["stage1", "stage2", "stage3"]

    def __init__(self, weights: str | None = "letters", image_size: int = 32, resize_mode: str = "crop"):
        super().__init__(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.preprocess = ImagePreprocess(image_size, image_size, "bilinear", resize_mode)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stage1 = _Residual(32, 32, stride=1)
        self.stage2 = _Residual(32, 64, stride=2)
        self.stage3 = _Residual(64, 128, stride=2)
        if weights is not None:
            load_backbone_weights(self, EMBEDDED if weights == "letters" else weights)
        self.to(memory_format=torch.channels_last)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures, uint8 or float in [0, 1] -> pooled features."""
        x = self.stem(self.normalise(inputs))
        return self.stage3(self.stage2(self.stage1(x))).mean(dim=(2, 3))
