"""One way from a picture file to pixels, shared by training, validation, prediction and export.

Every choice here changes pixel values, so no other code decodes: EXIF orientation is applied, transparency lies on
white, 16-bit grey is scaled and not clipped, animations give their first frame, and what cannot be decoded right is
refused.
"""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from headstart.inputs.base import UnreadableInput

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff")
    + (".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2")
)
"""File name endings, lower case and with the dot, that count as pictures. The content decides how a file is decoded."""

MAX_PIXELS = 178_956_970
"""Width x height above which a picture is refused unread (Pillow's own hard limit: half a gigabyte as RGB)."""

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")


class UnreadablePicture(UnreadableInput):
    """A file that cannot be decoded right."""


def silence_pillow() -> None:
    """Drop Pillow's warnings (odd EXIF, large pictures): what matters is refused here, with a reason."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


silence_pillow()


def read_picture(source: Path | str | BinaryIO, least_side: int | None = None) -> Tensor:
    """Decode one picture, from a path or from a seekable binary stream, to RGB.

    Args:
        source: a path, or a stream that stands at the picture's beginning.
        least_side: a JPEG whose shorter side is at least twice so many pixels is decoded at 1/2, 1/4 or 1/8 of its
            size, the shorter side staying at least so long: the decoder leaves out the finest waves instead of
            computing pixels that a resize averages away. None, and every other format: in full.

    Returns:
        uint8, shape (3, H, W), values 0..255. The memory is channels-last, as the decoder leaves it (strides 1, 3W, 3):
        that spares a copy and torchvision resizes it about twice as fast.

    Raises:
        UnreadablePicture: missing, empty, truncated, too large, no picture, or a pixel type that has no known scale.
    """
    if not isinstance(source, (str, Path)):
        name = getattr(source, "name", None)
        return _decode(source, name if isinstance(name, str) else None, least_side)
    try:
        with open(source, "rb") as stream:
            return _decode(stream, str(source), least_side)
    except OSError as error:
        raise UnreadablePicture(f"cannot be opened ({error.strerror or error})", str(source)) from error


def picture_size(path: Path | str) -> tuple[int, int]:
    """Width and height as `read_picture` gives them, from the head of the file: no pixel is decoded.

    Raises:
        UnreadablePicture: no picture by its head, or it cannot be opened.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            try:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            except Exception:  # as in _turn_upright
                turned = False
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UnreadablePicture(f"cannot be opened ({error})", str(path)) from error
    return (height, width) if turned else (width, height)


def _decode(stream: BinaryIO, path: str | None, least_side: int | None) -> Tensor:
    try:
        with Image.open(stream) as image:
            _check_size(image.size)
            if least_side is not None:  # before its EXIF turns it: a square bound does not care
                image.draft(None, (least_side, least_side))
            image.load()
            _turn_upright(image)
            pixels = _to_rgb_array(image)
    except UnreadablePicture as error:
        raise UnreadablePicture(error.reason, path) from error
    except MemoryError:
        raise  # says something about the machine, not about the file
    except Exception as error:  # a broken file makes Pillow's parsers raise nearly anything
        raise UnreadablePicture(_reason(error, stream), path) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise UnreadablePicture(f"too large: {size[0]} x {size[1]} pixels, at most {MAX_PIXELS:,} pixels are decoded")


def _turn_upright(image: Image.Image) -> None:
    """Turns a loaded picture as its EXIF orientation says, in place; a picture with a broken EXIF block stays as it is.

    In place, because Pillow would otherwise copy every picture that needs no turn.
    """
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # each broken EXIF block raises another error; the pixels are fine
        pass


def _to_rgb_array(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, writable."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if image.mode == "F":
        raise UnreadablePicture("floating point pixels have no known scale; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return np.repeat(_grey16_to_8(image)[:, :, None], 3, axis=2)
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return _on_white(image)
    return np.array(image.convert("RGB"))


def _grey16_to_8(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 of 16-bit grey, 65535 to 255 and rounded; Pillow's own conversion would clip at 255."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise UnreadablePicture(f"integer pixels from {grey.min()} to {grey.max()}; only 0 to 65535 has a known scale")
    scaled = ((grey + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[grey == transparent] = 255
    return scaled


def _on_white(image: Image.Image) -> np.ndarray:
    """Composited: a transparent pixel's hidden colour must not appear."""
    if image.mode == "La":  # premultiplied; Pillow converts it to LA alone
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


def _reason(error: Exception, stream: BinaryIO) -> str:
    """A few words for what is wrong with the file."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: more than {MAX_PIXELS:,} pixels"
    try:
        stream.seek(0)
        head = stream.read(512)
    except (OSError, ValueError):
        return f"cannot be read ({error})"
    if not head:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        if head.startswith(_SIGNATURES):
            return "truncated or broken header"
        is_text = not any(byte < 9 or 13 < byte < 32 for byte in head)
        return "not a picture (text?)" if is_text else "not a picture"
    if "truncated" in str(error).lower():
        return "truncated"
    return f"broken picture data ({error})"
