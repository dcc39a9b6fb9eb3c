import pytest

from headstart.errors import printable


@pytest.mark.parametrize("text", ["a\x1bb", "a\rb", "a\x7fb", "a\x9bb", "a\u2028b", "a\u202eb", "a\u2066b", "a\udcffb"])
def test_what_changes_a_terminal_is_replaced(text):
    assert printable(text) == "a?b"


@pytest.mark.parametrize(
    "text",
    ["a\n\tb", "10\u202f%", "10\xa0%", "\u3042\u3000\u3044", "\u0645\u06cc\u200c\u062e", "\U0001f468\u200d\U0001f373"],
)
def test_what_languages_need_is_kept(text):
    assert printable(text) == text
