"""A contact sheet: one figure with many pictures, each with a caption."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

TILE_INCHES = 1.9  # width and height of a picture
SMALL_PICTURE_SIDE = 64
"""Pixels. Smaller pictures are enlarged without smoothing, so that every pixel is visible."""


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet.

    Attributes:
        picture: uint8 `(3, height, width)`.
        caption: a few short lines.
        overlay: heat map from 0 to 1, `(height, width)`, drawn over the picture; None: no overlay.
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
        interpolation = "nearest" if tile.picture.shape[-1] < SMALL_PICTURE_SIDE else "antialiased"
        axes.imshow(tile.picture.permute(1, 2, 0).numpy(), interpolation=interpolation)
        if tile.overlay is not None:
            heat = tile.overlay.numpy()
            axes.imshow(heat, cmap="inferno", alpha=0.15 + 0.45 * np.clip(heat, 0, 1), vmin=0, vmax=1)
        axes.set_title(tile.caption, fontsize=7.5, color=tile.colour, pad=3)
    return figure


def is_picture(value: object) -> bool:
    """Whether an input of a model is a picture `(3, height, width)`."""
    return isinstance(value, Tensor) and value.ndim == 3 and value.shape[0] == 3
