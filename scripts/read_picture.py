"""Reads pictures like Headstart, for programs without Headstart and torch; needs only numpy and Pillow.

Copy this file next to your own program. It follows the rules of `headstart/inputs/images/decode.py`, which read the
training pictures: EXIF orientation is applied, transparent pixels are put on white, 16-bit grey is scaled instead of
clipped, and animations give their first frame.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

Image.init()
KNOWN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
# Pillow knows more formats; for one of them, EPS, it would start another program
FORMATS = [name for name in KNOWN if name in Image.OPEN]
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def read_picture(path: str | Path, preprocess: dict[str, Any], resize: bool) -> np.ndarray:
    """One picture as input for the network, uint8 `(3, height, width)`.

    Args:
        path: the file.
        preprocess: the entry `preprocess` in the description of the export.
        resize: whether to resize and crop here, because the network does not do it.

    Raises:
        OSError, ValueError: the picture cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as in training; draft() changes nothing else
            image.draft(None, (preprocess["decode_side"],) * 2)
            image.load()
            picture = to_rgb(upright(image), preprocess["grey_bits"])
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # too large, or broken: then Pillow raises nearly any type of error
        raise ValueError(str(error)) from error
    if resize:
        picture = resized(picture, preprocess)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; a broken EXIF block changes nothing."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # each broken EXIF block raises another error; the pixels are fine
        return image
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    return image if turn is None else image.transpose(Image.Transpose(turn))


def to_rgb(image: Image.Image, grey_bits: int) -> Image.Image:
    """8-bit RGB."""
    if image.mode == "F":
        raise ValueError("floating point pixels have no known scale")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("integer pixels beyond 0 to 65535 have no known scale")
        white = 2**grey_bits - 1
        scaled = ((np.minimum(grey, white) * 255 + white // 2) // white).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            scaled[grey == transparent] = 255
        return Image.fromarray(scaled).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def resized(image: Image.Image, preprocess: dict[str, Any]) -> Image.Image:
    """Resized and cropped to the network's size; Pillow's resize is antialiased like torch's."""
    size, side = preprocess["image_size"], preprocess["resize_size"]
    how, (width, height) = RESAMPLING[preprocess["interpolation"]], image.size
    if preprocess["resize_mode"] == "squash":
        return image.resize((size, size), how)
    if preprocess["resize_mode"] == "letterbox":
        longest = max(width, height)
        small = image.resize((size * width // longest, size * height // longest), how)
        left, top = (size - small.width) // 2, (size - small.height) // 2
        return ImageOps.expand(small, (left, top, size - small.width - left, size - small.height - top))
    shortest = min(width, height)
    small = image.resize((side * width // shortest, side * height // shortest), how)
    left, top = round((small.width - size) / 2), round((small.height - size) / 2)
    return small.crop((left, top, left + size, top + size))
