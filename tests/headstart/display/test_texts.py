"""How texts are shown: in pieces, in 80 columns, and never as HTML or Markdown."""

import io

from rich.console import Console

from headstart.display.by_sample import view_of
from headstart.display.pictures import PictureView
from headstart.display.samples import Entry, SampleView
from headstart.display.tables import excerpt, mistakes_table
from headstart.display.texts import LONGEST, Piece, TextView, main_words, pieces
from headstart.files import Column
from headstart.inputs.text.words import Word
from headstart.metrics.mistakes import Mistake

NASTY = "<script>alert(1)</script> & | `x` **bold**"


def test_pieces_are_words_and_what_stands_between_them():
    text = "a good film!"
    words = [Word(0, 1, -0.1), Word(2, 6, 0.4), Word(7, 11, 0.0), Word(11, 12, 0.2)]
    assert pieces(text, words) == [
        Piece("a", -0.25), Piece(" "), Piece("good", 1.0), Piece(" "), Piece("film", 0.0), Piece("!", 0.5),
    ]  # fmt: skip
    assert pieces(text, []) == [Piece(text)]


def test_what_the_network_did_not_read_is_marked():
    shown = [Piece("good", 1.0), Piece(" "), Piece("film ", is_read=False)]
    assert pieces("good film ", [Word(0, 4, 1.0)]) == shown
    assert pieces("good ", [Word(0, 4, 1.0)]) == [Piece("good", 1.0), Piece(" ")], (
        "a space at the end is nothing to read"
    )
    accent = "\N{COMBINING ACUTE ACCENT}"
    assert all(piece.is_read for piece in pieces(f"good {accent}", [Word(0, 4, 1.0)])), "tokenizers may drop accents"


def test_only_the_beginning_of_a_long_text_is_shown():
    text = "word " * 1000
    words = [Word(5 * place, 5 * place + 4, 0.1) for place in range(1000)]
    for given in (words, []):
        shown = pieces(text, given)
        assert "".join(piece.text for piece in shown) == text[:LONGEST] + " ..."
        assert all(piece.is_read for piece in shown)


def test_the_words_with_the_largest_weights_are_listed():
    text = "good bad so so fine"
    words = [Word(0, 4, 0.2), Word(5, 8, -0.5), Word(9, 11, 0.001), Word(15, 19, 0.7)]
    assert main_words(text, words) == {"for": ["fine +0.70", "good +0.20"], "against": ["bad -0.50"]}


def test_an_excerpt_is_one_line_and_no_longer_than_asked():
    assert excerpt(" a\n\tb ") == "a b"
    assert len(excerpt("word " * 100, 50)) <= 50
    assert excerpt("$x$ " * 2) == "$x$ $x$", "no formula is prevented here, because nothing makes one"


def test_a_text_never_becomes_html(tmp_path):
    entry = Entry(NASTY, (f"true: {NASTY}",), NASTY, True, [Word(0, 8, 0.5)], NASTY)
    TextView().write(tmp_path / "texts", [[entry, Entry(NASTY, ("a",))]], NASTY)
    html = (tmp_path / "texts.html").read_text()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5
    assert 'class="for" style="--share:1.000">&lt;script&gt;</span>' in html


def test_a_text_never_becomes_markdown():
    class Writer:
        def add_text(self, tag, text, step):
            self.text = text

    TextView().add_to(writer := Writer(), "x", [Entry(NASTY, ("a|b",))], "title", 0)
    header, line, row = writer.text.splitlines()
    assert row.replace(r"\|", "").count("|") == header.count("|") == line.count("|") == 3
    assert r"\<script\>" in row
    assert r"\*\*bold\*\*" in row


def test_mistakes_fit_into_80_columns():
    mistakes = [Mistake(0, "x", "Donaudampfschifffahrt" * 3, "[bold]b", 0.987, 1)] * 2
    stream = io.StringIO()
    table = mistakes_table(mistakes, Column("text", ["a long text " * 40, "[red]short"]), "worst mistakes")
    Console(file=stream, width=80, markup=False).print(table)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 14
    assert "[red]short" in stream.getvalue()
    assert "0.987" in stream.getvalue()


def test_the_view_is_chosen_by_what_a_sample_is():
    import torch

    assert isinstance(view_of("text"), TextView)
    assert isinstance(view_of(torch.zeros(3, 4, 4)), PictureView)
    for other in (torch.zeros(5), {"a": 1}):
        assert type(view_of(other)) is SampleView
        assert not view_of(other).can_show
