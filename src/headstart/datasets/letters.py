"""Rendered letters: a labelled data set of any size without a download, to pretrain small backbones."""

from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from headstart.data.module import DataModule
from headstart.data.samples import Samples
from headstart.inputs.images.files import PictureStack

# The upper and lower case of the other letters look alike in a single picture. EMNIST "balanced" merges the same
# letters (Cohen et al. 2017, https://arxiv.org/abs/1702.05373).
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abdefghnqrt"
FONTS = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral", "cmr10", "cmss10", "cmtt10", "cmb10")
PICTURE_SIDE = 32


class Letters(DataModule):
    """Letters (no digits) in the fonts of matplotlib, distorted, blurred and with noise, 32x32 pixels.

    Args:
        num_samples: number of pictures. A picture depends on `seed` and its index alone.
        options: arguments of `DataModule`.
    """

    def __init__(self, *, num_samples: int = 30_000, **options: Any):
        super().__init__(**options)
        self.num_pictures = num_samples

    def dataset(self, split: str) -> Samples | None:
        """The letters as grey pictures `(3, 32, 32)`; None for `val` and `test`."""
        if split != "train":
            return None
        targets = [index % len(LETTERS) for index in range(self.num_pictures)]
        pictures = np.stack([draw(LETTERS[c], self.seed, i) for i, c in enumerate(targets)])
        names = [f"{index:06d}" for index in range(len(pictures))]
        classes = [f"{letter}_lower" if letter.islower() else letter for letter in LETTERS]
        return Samples(names, targets, classes, PictureStack(torch.from_numpy(pictures)))


@cache
def _font(number: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_files()[number]), size=2 * PICTURE_SIDE)


@cache
def font_files() -> list[Path]:
    """The files of all weights and slants of `FONTS` in this version of matplotlib."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = [path for path in sorted(folder.glob("*.ttf")) if path.stem.startswith(FONTS)]
    return [path for path in found if "Display" not in path.stem and "NonUni" not in path.stem]


def draw(letter: str, seed: int, index: int) -> np.ndarray:
    """One letter, distorted as in handwriting: uint8 `(32, 32)`, light on dark.

    It is rotated up to 20 degrees, sheared, stretched, drawn with thin or thick strokes, reduced to 8 to 32 pixels and
    enlarged again, and gets noise.
    """
    random = np.random.default_rng((seed, index))
    side = 2 * PICTURE_SIDE
    canvas = Image.new("L", (2 * side, 2 * side))
    font = _font(int(random.integers(len(font_files()))))
    stroke = int(random.integers(0, 4))
    ImageDraw.Draw(canvas).text((side, side), letter, fill=255, font=font, anchor="mm", stroke_width=stroke)
    angle, shear = np.deg2rad(random.uniform(-20, 20)), random.uniform(-0.3, 0.3)
    bend = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ [[1, shear], [0, 1]]
    left, top, right, bottom = canvas.getbbox()
    # the letter fills most of the picture, as a cropped digit does
    stretch = np.diag([(right - left) / side, (bottom - top) / side]) / random.uniform(0.7, 1.05, size=2)
    if random.random() < 0.5:  # keep the proportions, so that an I stays thin
        stretch = np.eye(2) * stretch.max()
    matrix = bend @ stretch
    centre = np.array([(left + right) / 2, (top + bottom) / 2]) + random.uniform(-4, 4, size=2)
    offset = centre - matrix @ [side / 2, side / 2]
    terms = (*matrix[0], offset[0], *matrix[1], offset[1])
    picture = canvas.transform((side, side), Image.Transform.AFFINE, terms, Image.Resampling.BILINEAR)
    picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0, 2)))
    seen_at = int(random.integers(8, PICTURE_SIDE + 1))
    picture = picture.resize((seen_at, seen_at), Image.Resampling.BOX)
    picture = picture.resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BILINEAR)
    ink = np.asarray(picture, dtype=np.float32) * random.uniform(0.7, 1.2)
    return (ink + random.normal(0, random.uniform(0, 12), ink.shape)).clip(0, 255).astype(np.uint8)
