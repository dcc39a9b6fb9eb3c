"""The heat map of one photo in a file, at the size of the photo."""

from typing import BinaryIO

import numpy as np
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.display.contact_sheet import fitted
from headstart.display.heat_map import overlaid, placed
from headstart.evaluation.explanations.pictures import explain
from headstart.inputs.images.decode import read_picture

LONGEST = 1600
"""Longest side of a map, in pixels."""


def photo_under_map(network: nn.Module, backbone: Backbone, source: BinaryIO, batch: Tensor, chosen: int) -> np.ndarray:
    """A photo under the heat map of a class, uint8 `(height, width, 3)`; as large as the photo, at most `LONGEST`.

    Args:
        network: batch -> logits.
        backbone: part of the network; for pictures.
        source: the file, at its beginning.
        batch: the photo as the network gets it, `(1, 3, height, width)`.
        chosen: index of the class.
    """
    (heat,) = explain(network, backbone, batch, [chosen])
    preprocess = backbone.preprocess
    photo = fitted(read_picture(source, LONGEST, preprocess.grey_bits), LONGEST)
    height, width = photo.shape[1:]
    return overlaid(photo, placed(heat, preprocess.seen(height, width), height, width))
