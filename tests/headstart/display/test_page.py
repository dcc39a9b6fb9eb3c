"""Pages that hold all they show."""

import re

from matplotlib.figure import Figure

from headstart.display.page import escape_markdown, inline_svg, style


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
