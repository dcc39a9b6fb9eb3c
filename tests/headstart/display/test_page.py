"""Pages that hold all they show."""

import re
import struct
import zlib

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import EpsImagePlugin, Image

from headstart.display.page import escape_markdown, file_uri, inline_svg, style


def drawn(key, label="a line"):
    with style():
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label="<b>")
        axes.legend()
    return inline_svg(figure, key, label)


def test_a_figure_takes_the_colour_of_the_text_and_says_what_it_is():
    text = drawn("one", 'a "line" <up>')
    assert text.startswith('<svg role="img" aria-label="a &#34;line&#34; &lt;up&gt;"')
    assert "currentColor" in text
    assert "#010203" not in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


def test_two_figures_share_no_name_and_each_finds_its_own():
    names = [set(re.findall(r' id="([^"]+)"', drawn(key))) for key in ("one", "two")]
    assert not names[0] & names[1]
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', drawn("one")))
    assert used
    assert used <= names[0]


def test_text_means_itself_in_markdown():
    assert escape_markdown("a|b <c>\n*d*") == r"a\|b \<c\> \*d\*"


def test_a_photo_goes_into_a_page_as_webp_and_a_drawing_as_png(tmp_path):
    y, x = np.mgrid[:64, :64]
    noise = np.random.default_rng(0).integers(0, 30, (64, 64))
    photo = np.stack([2 * x + noise, 2 * y + noise, x + y + noise], axis=2).astype(np.uint8)
    drawing = np.repeat((x + y)[..., None] % 2 * 255, 3, axis=2).astype(np.uint8)
    for content, kind in ((photo, "webp"), (drawing, "png")):
        Image.fromarray(content).save(tmp_path / "picture.png")
        found = file_uri(tmp_path / "picture.png")
        assert found.startswith(f"data:image/{kind};base64,")
        assert len(found) < 100 + {"webp": 0.5, "png": 1.4}[kind] * (tmp_path / "picture.png").stat().st_size


def chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def damaged_png(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header announces this size; its pixels are missing."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no PNG picture"),
        (damaged_png(60_000, 60_000), "too large"),
        (damaged_png(9000, 9000), "too large: 9000 x 9000 pixels"),
        (damaged_png(8, 8), "no PNG picture, or damaged"),
        (b"", "no PNG picture"),
    ],
)
def test_a_picture_of_a_stranger_is_left_out_if_it_is_no_small_png(content, reason, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was started"))
    file = tmp_path / "confusion.png"
    file.write_bytes(content)
    assert file_uri(file) is None
    assert f"{file} is not shown: {reason}" in caplog.text


def test_a_picture_that_is_too_long_for_webp_stays_png(tmp_path):
    Image.new("L", (1, 17_000)).save(tmp_path / "sheet.png")
    assert file_uri(tmp_path / "sheet.png").startswith("data:image/png;base64,")
