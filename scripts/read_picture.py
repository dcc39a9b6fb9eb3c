"""Pictures as Headstart reads them, for programs that have neither Headstart nor torch: numpy and Pillow alone.

To be copied beside your own program. The rules are those of `headstart/data/decode.py`; the network has learned from
pictures that were read by them: EXIF orientation is applied, transparency lies on white, 16-bit grey is scaled and not
clipped, animations give their first frame.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def read_picture(path: str | Path, preprocess: dict[str, Any], resize: bool) -> np.ndarray:
    """One picture as the network takes it, uint8 `(3, height, width)`.

    Args:
        path: the file.
        preprocess: what the export says under this name.
        resize: whether to resize and crop here, for a network that does not do it itself.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as it was in training; nothing else changes
            image.draft(None, (preprocess["decode_side"],) * 2)
            image.load()
            picture = to_rgb(upright(image))
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # too large, or so broken that Pillow's parsers raise nearly anything
        raise ValueError(str(error)) from error
    if resize:
        picture = resized(picture, preprocess)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; as stored when the EXIF block is broken."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # as many kinds as there are broken EXIF blocks; the pixels are fine
        return image
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    return image if turn is None else image.transpose(Image.Transpose(turn))


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB."""
    if image.mode == "F":
        raise ValueError("floating point pixels have no known scale")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("integer pixels beyond 0 to 65535 have no known scale")
        scaled = ((grey + 128) // 257).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            scaled[grey == transparent] = 255
        return Image.fromarray(scaled).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def resized(image: Image.Image, preprocess: dict[str, Any]) -> Image.Image:
    """Resized and cropped to the network's size; Pillow's resize is antialiased, as is torch's, which copied it."""
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
