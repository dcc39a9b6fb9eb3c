"""A contact sheet: one figure with many pictures, each with a caption."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from headstart.display.heat_map import overlaid

TILE_INCHES = 1.9  # width and height of a picture
SMALL_PICTURE_SIDE = 64
"""Pixels. Smaller pictures are enlarged without smoothing, so that every pixel is visible."""
LONGEST_SIDE = 480
"""Pixels. Larger pictures are made smaller: a tile has about half of these pixels."""


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet.

    Attributes:
        picture: uint8 `(3, height, width)`.
        caption: a few short lines.
        overlay: heat map of the same height and width, as for `overlaid`; None: no overlay.
        colour: of the caption.
    """

    picture: Tensor
    caption: str
    overlay: Tensor | None = None
    colour: str = "black"


def contact_sheet(tiles: list[Tile], columns: int, title: str) -> Figure:
    """A figure with the tiles in `columns` columns, row by row."""
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = max(tile.caption.count("\n") + 1 for tile in tiles)
    width = max(columns * TILE_INCHES, 4.2)  # for the title
    figure = Figure(figsize=(width, rows * (TILE_INCHES + 0.17 * lines + 0.08) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, tile in zip(figure.axes, tiles, strict=False):
        interpolation = "nearest" if max(tile.picture.shape[-2:]) < SMALL_PICTURE_SIDE else "antialiased"
        axes.imshow(_pixels(tile), interpolation=interpolation)
        axes.set_title(tile.caption, fontsize=7.5, color=tile.colour, pad=3)
    return figure


def _pixels(tile: Tile) -> np.ndarray:
    if tile.overlay is None:
        return tile.picture.permute(1, 2, 0).numpy()
    return overlaid(tile.picture, tile.overlay)


def fitted(picture: Tensor, longest: int = LONGEST_SIDE) -> Tensor:
    """A picture `(3, height, width)` whose longer side has at most `longest` pixels; the proportions are kept."""
    height, width = picture.shape[-2:]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture
    return resize(picture, [max(1, round(scale * side)) for side in (height, width)], antialias=True)


def is_picture(value: object) -> bool:
    """Whether a sample is a picture `(3, height, width)`."""
    return isinstance(value, Tensor) and value.ndim == 3 and value.shape[0] == 3
