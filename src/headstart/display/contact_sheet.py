"""Many pictures on one, each with a caption."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

SIDE = 1.9  # of a picture, in inches
SMALL = 64
"""Pictures of fewer pixels a side are shown as they are, not smoothed."""


@dataclass(frozen=True)
class Tile:
    """One place of a sheet.

    Attributes:
        picture: uint8 `(3, height, width)`.
        caption: a few short lines.
        overlay: from 0 to 1, `(height, width)`, drawn over the picture; None for none.
        colour: of the caption.
    """

    picture: Tensor
    caption: str
    overlay: Tensor | None = None
    colour: str = "black"


def contact_sheet(tiles: list[Tile], columns: int, title: str) -> Figure:
    """The tiles in rows of so many, in their order."""
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = max(tile.caption.count("\n") + 1 for tile in tiles)
    width = max(columns * SIDE, 4.2)  # for the title
    figure = Figure(figsize=(width, rows * (SIDE + 0.17 * lines + 0.08) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes in places:
        axes.set_axis_off()
    for axes, tile in zip(figure.axes, tiles, strict=False):
        shape = tile.picture.shape[-1]
        axes.imshow(tile.picture.permute(1, 2, 0).numpy(), interpolation="nearest" if shape < SMALL else "antialiased")
        if tile.overlay is not None:
            heat = tile.overlay.numpy()
            axes.imshow(heat, cmap="inferno", alpha=0.15 + 0.45 * np.clip(heat, 0, 1), vmin=0, vmax=1)
        axes.set_title(tile.caption, fontsize=7.5, color=tile.colour, pad=3)
    return figure


def is_picture(value: object) -> bool:
    """Whether an input can be shown."""
    return isinstance(value, Tensor) and value.ndim == 3 and value.shape[0] == 3
