"""Decodes picture files to RGB pixels: the same code for training, validation, prediction and export.

No other module decodes pictures, because every choice changes pixel values: EXIF orientation is applied, transparent
pixels are put on white, 16-bit grey is scaled instead of clipped, and animations give their first frame. A file that
cannot be decoded correctly raises an error.
"""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from headstart.errors import UsageError
from headstart.inputs.base import UnreadableInput
from headstart.inputs.opening import open_file

try:  # optional: pictures of phones
    import pillow_heif
except ImportError:
    HEIC_VERSION = None
else:
    pillow_heif.register_heif_opener()
    HEIC_VERSION = pillow_heif.__version__

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff")
    + (".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".heic", ".heif")
)
"""File name endings of pictures, lower case with the dot. The content of a file decides how it is decoded."""

MAX_PIXELS = 178_956_970
"""Largest width x height that is decoded; Pillow's own hard limit, half a gigabyte as RGB."""

Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
    if name in Image.OPEN
)
"""Formats that are decoded, by Pillow's names. It knows more; for one of them, EPS, it would start another program."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the pixels upright (CIPA DC-008, tag 0x0112)."""
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")


def silence_pillow() -> None:
    """Hides Pillow's warnings (odd EXIF, large pictures): this module raises an error where it matters."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


silence_pillow()


def read_picture(source: Path | str | BinaryIO, least_side: int | None = None, grey_bits: int = 16) -> Tensor:
    """Decodes one picture to RGB.

    Args:
        source: a path, or a seekable binary stream at the beginning of the picture.
        least_side: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if its shorter side then still has at least this
            number of pixels. This is faster: the decoder skips detail that a later resize would average away. None,
            and every other format: decoded at full size.
        grey_bits: bits that are used in pictures of 16-bit grey: 2 ** `grey_bits` - 1 becomes 255. Cameras and scanners
            often store 10, 12 or 14 bits in this format.

    Returns:
        uint8, shape (3, H, W), values 0..255. The memory stays channels-last, as the decoder writes it (strides 1, 3W,
        3): this saves a copy, and torchvision resizes it about twice as fast.

    Raises:
        UnreadableInput: the file is missing, empty, truncated, too large or not a picture, or the scale of its pixel
            values is unknown.
    """
    if not isinstance(source, (str, Path)):
        name = getattr(source, "name", None)
        return _decode(source, name if isinstance(name, str) else None, least_side, grey_bits)[0]
    with open_file(source) as stream:
        return _decode(stream, str(source), least_side, grey_bits)[0]


def largest_grey(source: BinaryIO) -> int | None:
    """Decodes a picture as `read_picture`, and gives the largest value of 16-bit grey; None for any other picture.

    Raises:
        UnreadableInput: as `read_picture`.
    """
    return _decode(source, None, None, 16)[1]


def picture_size(source: Path | str | BinaryIO) -> tuple[int, int]:
    """Width and height of the picture that `read_picture` returns, from the header of the file; decodes no pixels.

    A rotation that a PNG file stores after its pixels is not seen.

    Raises:
        UnreadableInput: the header is not one of a picture, or the file cannot be opened.
    """
    if not isinstance(source, (str, Path)):
        return _size_in_header(source)
    with open_file(source) as stream:
        return _size_in_header(stream)


def _size_in_header(stream: BinaryIO) -> tuple[int, int]:
    try:
        with Image.open(stream, formats=FORMATS) as image:
            width, height = image.size
            try:
                # not image.getexif(): without EXIF in the header, that of a PNG decodes the pixels to look after them
                turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            except Exception:  # as in _upright
                turned = False
    except Exception as error:  # on a broken file Pillow raises nearly any type of error
        name = getattr(stream, "name", None)
        raise UnreadableInput(_reason(error, stream), name if isinstance(name, str) else None) from error
    return (height, width) if turned else (width, height)


def _decode(stream: BinaryIO, path: str | None, least_side: int | None, grey_bits: int) -> tuple[Tensor, int | None]:
    try:
        with Image.open(stream, formats=FORMATS) as image:
            _check_size(image.size)
            if least_side is not None:  # before the EXIF rotation: the bound is square, so the order does not matter
                image.draft(None, (least_side, least_side))
            image.load()
            image = _upright(image)
            grey = int(np.asarray(image).max()) if image.mode.startswith("I") else None
            pixels = _to_rgb_array(image, grey_bits)
    except UnreadableInput as error:
        raise UnreadableInput(error.reason, path) from error
    except MemoryError:
        raise  # a problem of the machine, not of the file
    except Exception as error:  # on a broken file Pillow raises nearly any type of error
        raise UnreadableInput(_reason(error, stream), path) from error
    return torch.from_numpy(pixels).permute(2, 0, 1), grey


def picture_in_memory(given: Image.Image | np.ndarray, grey_bits: int = 16) -> Tensor:
    """The pixels of a picture that a program has already decoded, in the same form as from a file.

    EXIF orientation, transparency and 16-bit grey are treated as in `read_picture`. The picture itself is not changed.

    Args:
        given: a PIL picture; or an array of uint8 `(height, width)`, `(height, width, 3)` RGB or `(height, width, 4)`
            RGBA, or of uint16 `(height, width)`.
        grey_bits: as for `read_picture`.

    Returns:
        uint8, shape (3, H, W).

    Raises:
        UnreadableInput: it cannot be decoded, or is too large.
        UsageError: the array has another shape or type.
    """
    image = _as_image(given) if isinstance(given, np.ndarray) else given
    try:
        _check_size(image.size)
        pixels = _to_rgb_array(_upright(image), grey_bits)
    except (UnreadableInput, MemoryError):
        raise
    except Exception as error:  # as for files
        raise UnreadableInput(f"broken picture data ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _as_image(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    colours = array.shape[2:] in ((3,), (4,))
    fits = (array.dtype == np.uint8 and (array.ndim == 2 or colours)) or (array.dtype == np.uint16 and array.ndim == 2)
    if not fits or array.size == 0:
        raise UsageError(
            f"an array of {array.dtype} {array.shape} is no picture: give uint8 from 0 to 255, (height, width) or "
            "(height, width, 3), or uint16 (height, width)"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise UnreadableInput(f"too large: {size[0]} x {size[1]} pixels, at most {MAX_PIXELS:,} pixels are decoded")


def _upright(image: Image.Image) -> Image.Image:
    """The picture with its EXIF orientation applied; the same one if it needs no turn.

    Made by hand, because Pillow's `exif_transpose` also writes the EXIF block anew, which fails if another tag in it is
    broken.
    """
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except MemoryError:
        raise
    except Exception:  # each broken EXIF block raises another error; the pixels are fine
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb_array(image: Image.Image, grey_bits: int) -> np.ndarray:
    """(H, W, 3) uint8, writable."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if image.mode == "F":
        raise UnreadableInput("floating point pixels have no known scale; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return np.repeat(_grey16_to_8(image, grey_bits)[:, :, None], 3, axis=2)
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return _on_white(image)
    return np.array(image.convert("RGB"))


def _grey16_to_8(image: Image.Image, bits: int) -> np.ndarray:
    """16-bit grey to uint8 `(H, W)`, scaled and rounded; Pillow's own conversion would clip at 255."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise UnreadableInput(f"integer pixels from {grey.min()} to {grey.max()}; only 0 to 65535 has a known scale")
    white = 2**bits - 1
    scaled = ((np.minimum(grey, white) * 255 + white // 2) // white).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[grey == transparent] = 255
    return scaled


def _on_white(image: Image.Image) -> np.ndarray:
    """The picture on a white background; otherwise the hidden colours of transparent pixels would appear."""
    if image.mode == "La":  # premultiplied alpha; Pillow converts it only to LA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


def _reason(error: Exception, stream: BinaryIO) -> str:
    """A few words about what is wrong with the file."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: more than {MAX_PIXELS:,} pixels"
    try:
        stream.seek(0)
        head = stream.read(512)
    except (OSError, ValueError):
        return f"cannot be read ({error})"
    if not head:
        return "empty file"
    if HEIC_VERSION is None and head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return 'HEIC, which needs another package: pip install -e ".[heic]"'
    if isinstance(error, UnidentifiedImageError):
        if head.startswith(_SIGNATURES):
            return "truncated or broken header"
        is_text = not any(byte < 9 or 13 < byte < 32 for byte in head)
        return "not a picture (text?)" if is_text else "not a picture"
    if "truncated" in str(error).lower():
        return "truncated"
    return f"broken picture data ({error})"
