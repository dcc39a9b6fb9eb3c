"""Heat maps over pictures."""

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor
from torch.nn.functional import grid_sample

LEAST_SHARE, MORE_SHARE = 0.15, 0.45
"""Share of the colour of the map where it is 0, and how much more it is where the map is 1."""
NOT_SEEN = 200
"""Grey value that is mixed, half and half, with the parts of a picture that the network does not see."""
Box = tuple[float, float, float, float]
"""Top, left, bottom and right edge, in pixels."""


def placed(heat: Tensor, box: Box, height: int, width: int) -> Tensor:
    """A heat map of the network's input as a map of the whole picture.

    Args:
        heat: `(rows, columns)`.
        box: the part of the picture that the input shows; it may reach beyond the picture.
        height, width: of the picture.

    Returns:
        `(height, width)`; NaN for pixels that are not in the input.
    """
    top, left, bottom, right = box
    y = (torch.arange(height) + 0.5 - top) / (bottom - top)
    x = (torch.arange(width) + 0.5 - left) / (right - left)
    grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=2)
    found = grid_sample(
        heat[None, None].float(), 2 * grid[None] - 1, mode="bilinear", padding_mode="border", align_corners=False
    )[0, 0]
    return found.masked_fill(~((grid > 0) & (grid < 1)).all(dim=2), torch.nan)


def overlaid(picture: Tensor, heat: Tensor) -> np.ndarray:
    """A picture under its heat map, uint8 `(height, width, 3)`. Parts that the network does not see are pale and grey.

    Args:
        picture: uint8 `(3, height, width)`.
        heat: `(height, width)` from 0 to 1; NaN where the network does not see the picture.
    """
    pixels = picture.permute(1, 2, 0).numpy().astype(np.float32)
    values = heat.numpy()
    known = np.nan_to_num(values)
    share = (LEAST_SHARE + MORE_SHARE * known.clip(0, 1))[..., None]
    coloured = (1 - share) * pixels + share * 255 * colormaps["inferno"](known)[..., :3]
    grey = (pixels.mean(axis=2, keepdims=True) + NOT_SEEN) / 2
    return np.where(np.isnan(values)[..., None], grey, coloured).round().astype(np.uint8)
