"""Class names in any script."""

import warnings
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from headstart.display import fonts
from headstart.display.figures import save

NO_FONT = "\u732b"
"""A Chinese character. No font of matplotlib has it."""


@pytest.fixture(autouse=True)
def _anew():
    for each in (fonts._best_font, fonts._warn):
        each.cache_clear()


def drawn(name, file):
    figure = Figure(figsize=(2, 1))
    text = figure.text(0.1, 0.5, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(file, figure)
    return text


def test_a_font_that_has_the_characters_is_used(tmp_path, caplog):
    text = drawn("cat \u24b6", tmp_path / "figure.png")  # a circled letter
    own, other = text.get_fontfamily()
    codes = [0x24B6 in get_font(findfont(FontProperties(family=[name]))).get_charmap() for name in (own, other)]
    assert codes == [False, True]
    assert not caplog.text


def test_without_a_font_a_sentence_says_it_once(tmp_path, caplog, monkeypatch):
    ours = Path(matplotlib.get_data_path())
    monkeypatch.setattr(fontManager, "ttflist", [e for e in fontManager.ttflist if Path(e.fname).is_relative_to(ours)])
    for place in range(2):
        drawn(f"cat {NO_FONT}", tmp_path / f"{place}.png")
    assert caplog.text.count(f"figures show boxes instead of {NO_FONT}: no font on this machine") == 1
    assert "apt install fonts-noto-cjk" in caplog.text


def test_plain_names_ask_for_no_font(tmp_path):
    before = fonts._best_font.cache_info().misses
    assert len(drawn("Käse é", tmp_path / "figure.png").get_fontfamily()) == 1
    assert fonts._best_font.cache_info().misses == before
