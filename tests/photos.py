"""Pictures made up for tests."""

from pathlib import Path

import torch
from PIL import Image


def pictures(root: Path, classes: list[str], number: int, start: int = 0) -> None:
    """So many of 30 x 20 pixels in a folder of each class; no two are alike, nor those of another `start`."""
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(number):
            random = torch.Generator().manual_seed(1000 * place + i + start)
            colours = torch.randint(0, 255, (20, 30, 3), generator=random).to(torch.uint8)
            Image.fromarray(colours.numpy()).save(root / name / f"{i}.png")
