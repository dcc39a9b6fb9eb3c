import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from headstart.errors import UsageError
from headstart.inputs.base import UnreadableInput
from headstart.inputs.images import decode
from headstart.inputs.images.decode import (
    PICTURE_SUFFIXES,
    largest_grey,
    picture_in_memory,
    picture_size,
    read_picture,
)
from headstart.inputs.opening import MAX_BYTES

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def pixel(picture: torch.Tensor, x: int, y: int) -> tuple[int, ...]:
    return tuple(picture[:, y, x].tolist())


def noise(height: int = 40, width: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def reason_for(source) -> str:
    with pytest.raises(UnreadableInput) as caught:
        read_picture(source)
    return caught.value.reason


def test_rgb_png_comes_back_exactly_from_path_string_and_stream(tmp_path):
    path = save(noise(), tmp_path / "a.png")
    expected = torch.from_numpy(np.array(noise())).permute(2, 0, 1)
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        picture = read_picture(source)
        assert picture.dtype == torch.uint8
        assert picture.shape == (3, 40, 60)
        assert torch.equal(picture, expected)


def test_the_tensor_is_writable_and_channels_last(tmp_path):
    picture = read_picture(save(noise(), tmp_path / "a.png"))
    assert picture.stride() == (1, 180, 3)
    picture[:] = 7
    assert picture.float().mean() == 7


def test_jpeg_equals_pillow(tmp_path):
    path = save(noise(), tmp_path / "a.jpg")
    assert np.array_equal(read_picture(path).permute(1, 2, 0).numpy(), np.array(Image.open(path)))


# (x, y) in the upright picture of the top left pixel of a stored one, 3 wide and 2 high (EXIF 2.3, tag 0x0112), ...
CORNERS = {1: (0, 0), 2: (2, 0), 3: (2, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 2), 8: (0, 2)}
NEXT_RIGHT = {
    1: (1, 0),
    2: (1, 0),
    3: (1, 1),
    4: (1, 1),
    5: (0, 1),
    6: (1, 1),
    7: (1, 1),
    8: (0, 1),
}  # ... and of its neighbour


@pytest.mark.parametrize("ending", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation, ending):
    stored = Image.new("RGB", (3, 2), WHITE)
    stored.putpixel((0, 0), RED)
    stored.putpixel((1, 0), BLUE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    picture = read_picture(save(stored, tmp_path / f"a.{ending}", exif=exif, **options))
    assert picture.shape == ((3, 2, 3) if orientation < 5 else (3, 3, 2))
    assert pixel(picture, *CORNERS[orientation]) == RED
    assert pixel(picture, *NEXT_RIGHT[orientation]) == BLUE


# from the stored pixels to the upright picture (EXIF 2.3, tag 0x0112); other values have no meaning
TURNED = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
    0: lambda stored: stored,
    9: lambda stored: stored,
}


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_of_a_jpeg(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(noise(), tmp_path / "a.jpg", exif=exif)
    expected = TURNED[orientation](np.array(Image.open(path)))
    assert np.array_equal(read_picture(path).permute(1, 2, 0).numpy(), expected)


def test_a_picture_is_turned_when_the_rest_of_its_exif_block_is_broken(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(noise(), tmp_path / "a.png", exif=exif)

    def fail(*args):
        raise ValueError("a tag that cannot be written")

    monkeypatch.setattr(Image.Exif, "tobytes", fail)
    assert read_picture(path).shape == (3, 60, 40)


def test_too_little_memory_for_a_turn_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise MemoryError

    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(noise(), tmp_path / "a.png", exif=exif)
    monkeypatch.setattr(Image.Image, "transpose", fail)
    with pytest.raises(MemoryError):
        read_picture(path)


def test_transparency_survives_the_exif_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("P", (2, 1), 0)
    stored.putpalette([*RED, *BLUE])
    stored.putpixel((1, 0), 1)
    picture = read_picture(save(stored, tmp_path / "a.png", transparency=0, exif=exif))
    assert picture.shape == (3, 2, 1)
    assert [pixel(picture, 0, 0), pixel(picture, 0, 1)] == [WHITE, BLUE]


@pytest.mark.parametrize("block", [b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\0\x01", b"Exif\0\0no tiff here"])
def test_a_broken_exif_block_costs_neither_the_picture_nor_a_warning(tmp_path, block):
    path = save(Image.new("RGB", (8, 4), BLUE), tmp_path / "a.jpg", exif=block)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode.silence_pillow()
        assert read_picture(path).shape == (3, 4, 8)


def test_hidden_colour_of_transparent_pixels_lies_on_white(tmp_path):
    image = Image.new("RGBA", (3, 1), (*RED, 0))
    image.putpixel((1, 0), (*RED, 255))
    image.putpixel((2, 0), (*BLACK, 51))  # a fifth of black on white
    picture = read_picture(save(image, tmp_path / "a.png"))
    assert [pixel(picture, x, 0) for x in range(3)] == [WHITE, RED, (204, 204, 204)]


def test_grey_with_alpha_lies_on_white(tmp_path):
    image = Image.new("LA", (2, 1), (10, 0))
    image.putpixel((1, 0), (10, 255))
    picture = read_picture(save(image, tmp_path / "a.png"))
    assert [pixel(picture, x, 0) for x in range(2)] == [WHITE, (10, 10, 10)]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_transparent_palette_entry_lies_on_white(tmp_path, transparency):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    path = save(image, tmp_path / "a.png", transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_picture(path)
    assert [pixel(picture, x, 0) for x in range(2)] == [WHITE, BLUE]


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (1, 2, 3)), ("L", 9), ("1", 0)])
def test_transparent_colour_without_alpha_channel_lies_on_white(tmp_path, mode, colour):
    path = save(Image.new(mode, (2, 2), colour), tmp_path / "a.png", transparency=colour)
    assert pixel(read_picture(path), 0, 0) == WHITE


@pytest.mark.parametrize(("ending", "order"), [("png", "<u2"), ("tiff", "<u2"), ("tiff", ">u2"), ("pgm", "<u2")])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, ending, order):
    values = np.array([[0, 128, 129, 257, 32896, 65278, 65535]], dtype=order)
    picture = read_picture(save(Image.fromarray(values), tmp_path / f"a.{ending}"))
    assert picture[0, 0].tolist() == [0, 0, 1, 1, 128, 254, 255]
    assert torch.equal(picture[0], picture[1])
    assert torch.equal(picture[0], picture[2])


def test_12_bits_in_16_are_scaled_to_white(tmp_path):
    values = np.array([[0, 8, 9, 2048, 4095, 5000]], dtype=np.uint16)
    file = save(Image.fromarray(values), tmp_path / "a.png")
    assert read_picture(file, grey_bits=12)[0, 0].tolist() == [0, 0, 1, 128, 255, 255]
    assert read_picture(file)[0, 0].max() == 19
    with file.open("rb") as stream:
        assert largest_grey(stream) == 5000
    with save(noise(), tmp_path / "b.png").open("rb") as stream:
        assert largest_grey(stream) is None


def test_16_bit_transparent_grey_lies_on_white(tmp_path):
    values = np.array([[300, 0]], dtype=np.uint16)
    picture = read_picture(save(Image.fromarray(values), tmp_path / "a.png", transparency=300))
    assert [pixel(picture, 0, 0), pixel(picture, 1, 0)] == [WHITE, BLACK]


def test_cmyk_jpeg_has_the_right_colours(tmp_path):
    path = save(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "a.jpg", quality=95)
    assert np.allclose(read_picture(path)[:, 8, 8].tolist(), RED, atol=6)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("1", 1, WHITE), ("L", 77, (77, 77, 77)), ("YCbCr", (76, 85, 255), (254, 0, 0)), ("LAB", (255, 128, 128), WHITE)],
)
def test_other_colour_spaces(tmp_path, mode, colour, expected):
    path = save(Image.new(mode, (5, 4), colour), tmp_path / "a.tiff")
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        pytest.skip(f"this Pillow cannot read the {mode} TIFF that it wrote")  # 12.3 cannot, 13.0 can
    picture = read_picture(path)
    assert picture.shape == (3, 4, 5)
    assert np.allclose(picture[:, 2, 2].tolist(), expected, atol=1)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_animation_gives_its_first_frame(tmp_path, ending):
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if ending == "webp" else {}
    path = save(frames[0], tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as animation:
        assert animation.n_frames == 3
    picture = read_picture(path)
    assert picture.shape == (3, 6, 8)
    assert pixel(picture, 4, 3) == RED


def test_content_decides_and_not_the_name(tmp_path):
    path = save(noise(), tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(read_picture(path).permute(1, 2, 0).numpy(), np.array(noise()))


def encoded(kind: str, **options) -> bytes:
    stream = io.BytesIO()
    noise(200, 200).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html>404 not found</html>", "not a picture (text?)"),
        (bytes(range(64)), "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "truncated or broken header"),
        (encoded("JPEG")[:5000], "truncated"),
        (encoded("PNG")[:5000], "truncated"),
        (encoded("GIF")[:5000], "truncated"),
    ],
)
def test_broken_files_say_why_and_which(tmp_path, content, reason):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableInput) as caught:
        read_picture(path)
    assert caught.value.reason.startswith(reason)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "AVIF"])
def test_half_a_file_is_never_a_picture(kind):
    content = encoded(kind)
    read_picture(io.BytesIO(content))
    assert reason_for(io.BytesIO(content[: len(content) // 2]))


def test_float_and_wide_integers_are_refused(tmp_path):
    assert "floating point" in reason_for(save(Image.new("F", (4, 4), 0.5), tmp_path / "f.tiff"))
    assert "to 70000" in reason_for(save(Image.new("I", (4, 4), 70000), tmp_path / "i.tiff"))
    assert "from -1" in reason_for(save(Image.new("I", (4, 4), -1), tmp_path / "n.tiff"))


def png_header(width: int, height: int) -> io.BytesIO:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0" * 64)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("pillow_limit", [Image.MAX_IMAGE_PIXELS, None])
def test_bombs_are_refused_from_their_header(monkeypatch, pillow_limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    reason = reason_for(png_header(50_000, 50_000))
    assert reason.startswith("too large")
    assert "178,956,970" in reason


def test_our_limit_counts_pixels(monkeypatch, tmp_path):
    path = save(noise(10, 10), tmp_path / "a.png")
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    read_picture(path)
    monkeypatch.setattr(decode, "MAX_PIXELS", 99)
    assert reason_for(path) == "too large: 10 x 10 pixels, at most 99 pixels are decoded"


def test_missing_file_and_folder(tmp_path):
    assert reason_for(tmp_path / "none.jpg").startswith("cannot be opened")
    assert reason_for(tmp_path).startswith("cannot be opened")


def test_the_exception_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(UnreadableInput("truncated", "a.jpg")))
    assert (error.reason, error.path, str(error)) == ("truncated", "a.jpg", "a.jpg: truncated")


def test_suffixes_are_lower_case_with_a_dot():
    assert {".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".avif", ".jfif"} <= PICTURE_SUFFIXES
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in PICTURE_SUFFIXES)


def photo_file(path, size, **options):
    small = torch.randint(256, (9, 9, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    return save(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), path, quality=95, **options)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((800, 600), (3, 150, 200)),
        ((600, 800), (3, 200, 150)),
        ((199, 1000), (3, 1000, 199)),
        ((200, 1000), (3, 500, 100)),
        ((1601, 1603), (3, 201, 201)),
        ((90, 90), (3, 90, 90)),
    ],
)
def test_large_jpegs_are_decoded_at_a_fraction_that_is_large_enough(size, shape, tmp_path):
    path = photo_file(tmp_path / "a.jpg", size)
    reduced, whole = read_picture(path, 100), read_picture(path)
    assert reduced.shape == shape
    assert whole.shape == (3, *size[::-1])
    assert reduced.stride() == (1, 3 * shape[2], 3)
    means = torch.nn.functional.interpolate(whole[None].float(), shape[1:], mode="area")[0]
    assert (reduced.float() - means).abs().mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_is_turned_too(orientation, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = photo_file(tmp_path / "a.jpg", (400, 240), exif=exif)
    whole = read_picture(path)
    reduced = read_picture(path, 60)
    assert reduced.shape == (3, whole.shape[1] // 4, whole.shape[2] // 4)
    means = torch.nn.functional.avg_pool2d(whole[None].float(), 4)[0]
    assert (reduced.float() - means).abs().mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_reduced_pictures_of_other_modes(mode, tmp_path):
    path = save(Image.new("RGB", (400, 400), (200, 100, 50)).convert(mode), tmp_path / "a.jpg", quality=95)
    assert read_picture(path, 50).shape == (3, 50, 50)
    assert (read_picture(path, 50)[:, 0, 0].int() - read_picture(path)[:, 0, 0]).abs().max() <= 2


def test_other_formats_are_decoded_in_full(tmp_path):
    assert torch.equal(read_picture(save(noise(), tmp_path / "a.png"), 1), read_picture(tmp_path / "a.png"))


def test_reduced_decoding_refuses_what_full_decoding_refuses(tmp_path, monkeypatch):
    path = photo_file(tmp_path / "a.jpg", (400, 400))
    monkeypatch.setattr(decode, "MAX_PIXELS", 400 * 400 - 1)
    with pytest.raises(UnreadableInput, match="too large"):
        read_picture(path, 50)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableInput, match="truncated"):
        read_picture(path, 50)


def test_a_format_that_starts_another_program_is_not_decoded(tmp_path, monkeypatch):
    """Pillow gives EPS to Ghostscript, whatever the ending of the file."""
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **named: started.append(given))
    file = tmp_path / "photo.jpg"
    file.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n0 0 10 10 rectfill\nshowpage\n%%EOF\n"
    )
    for read in (read_picture, picture_size):
        with pytest.raises(UnreadableInput):
            read(file)
    assert started == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "device.jpg"):
        for read in (read_picture, picture_size):
            with pytest.raises(UnreadableInput, match="it is a folder, a pipe"):
                read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_what_becomes_a_pipe_after_it_was_found_is_not_waited_for(tmp_path, monkeypatch):
    """A name may get another file between two calls."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "file.jpg").touch()
    regular, stat = os.stat(tmp_path / "file.jpg"), os.stat
    monkeypatch.setattr(os, "stat", lambda path, **named: regular if "pipe" in str(path) else stat(path, **named))
    found = []
    thread = threading.Thread(target=lambda: found.append(reason_for(tmp_path / "pipe.jpg")), daemon=True)
    thread.start()
    thread.join(10)
    assert found == ["cannot be opened (it is a folder, a pipe, a device or a socket)"]


def test_an_error_of_the_caller_is_not_one_of_opening(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(OSError, match="disk full"), decode.open_file(tmp_path / "a.jpg"):
        raise OSError("disk full")


def test_the_size_of_a_png_is_known_without_decoding_it(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    save(noise(), tmp_path / "plain.png")
    save(noise(), tmp_path / "turned.png", exif=exif)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("it was decoded"))
    assert picture_size(tmp_path / "plain.png") == (60, 40)
    assert picture_size(tmp_path / "turned.png") == (40, 60)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    file = tmp_path / "large.png"
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)  # sparse: takes no room
    with pytest.raises(UnreadableInput, match=r"too large: 1\.1 GB"):
        read_picture(file)


@pytest.mark.parametrize("name", sorted({"JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM"}))
def test_every_supported_format_is_decoded(name, tmp_path):
    file = tmp_path / "picture.any"
    Image.new("RGB", (8, 6), "red").save(file, name)
    assert read_picture(file).shape == (3, 6, 8)
    assert picture_size(file) == (8, 6)


def test_heic_is_decoded_with_its_extra(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason='needs pip install -e ".[heic]"')
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), RED)).save(tmp_path / "a.heic")
    picture = read_picture(tmp_path / "a.heic")
    assert picture.shape == (3, 48, 64)
    assert np.allclose(picture[:, 8, 8].tolist(), RED, atol=6)


def test_heic_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "HEIC_VERSION", None)
    monkeypatch.setattr(decode, "FORMATS", ("JPEG", "PNG"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(UnreadableInput, match=r'pip install -e "\.\[heic\]"'):
        read_picture(tmp_path / "a.heic")


def turned() -> Image.Image:
    image = noise()
    image.getexif()[ExifTags.Base.Orientation] = 6
    return image


@pytest.mark.parametrize(
    "image",
    [
        noise(),
        noise().convert("L"),
        noise().convert("1"),
        noise().convert("P"),
        noise().convert("RGBA"),
        noise().convert("LA"),
        Image.fromarray(np.arange(0, 60000, 25, dtype=np.uint16).reshape(40, 60)),
        turned(),
    ],
    ids=["RGB", "L", "1", "P", "RGBA", "LA", "I;16", "EXIF"],
)
def test_a_picture_in_memory_has_the_pixels_of_its_file(image, tmp_path):
    before = image.tobytes()
    file = save(image, tmp_path / "a.png", exif=image.getexif())
    assert torch.equal(picture_in_memory(image), read_picture(file))
    assert image.tobytes() == before


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_an_array_is_taken_as_it_is(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    picture = picture_in_memory(array)
    assert picture.dtype == torch.uint8
    assert torch.equal(picture, torch.from_numpy(array.reshape(5, 7, -1)).permute(2, 0, 1).expand(3, -1, -1))
    reversed_rows = picture_in_memory(array[::-1])
    assert torch.equal(reversed_rows, picture.flip(1))


def test_transparent_pixels_of_an_array_are_white():
    array = np.zeros((2, 2, 4), np.uint8)
    array[0, 0] = (255, 0, 0, 255)
    picture = picture_in_memory(array)
    assert pixel(picture, 0, 0) == RED
    assert pixel(picture, 1, 1) == WHITE


@pytest.mark.parametrize(
    "array", [np.zeros((3, 5, 7), np.uint8), np.zeros((5, 7, 3)), np.zeros((0, 7, 3), np.uint8), np.zeros(3, np.uint8)]
)
def test_another_array_is_no_picture(array):
    with pytest.raises(UsageError, match=r"is no picture: give uint8 from 0 to 255, \(height, width\)"):
        picture_in_memory(array)


def test_a_picture_in_memory_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableInput, match="too large"):
        picture_in_memory(noise())
