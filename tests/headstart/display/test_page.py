"""Pages that hold all they show."""

import re

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

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
