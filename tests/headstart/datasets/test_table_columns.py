from dataclasses import replace
from pathlib import Path

import pytest

from headstart.datasets.table_columns import Columns, FiniteNumbers, find_columns
from headstart.datasets.text_table import TextTable
from headstart.errors import UsageError
from headstart.inputs.tables import Row, Table


def table(*lines: str, names=None) -> Table:
    rows = [Row(place, tuple(line.split("|"))) for place, line in enumerate(lines, start=1)]
    return Table(Path("x.csv"), rows, {}, names)


def found(*lines, text=None, labels=None, header=None, classes=None, names=None) -> Columns:
    return find_columns(table(*lines, names=names), TextTable.content, text, labels, header, classes)


LINES = ["a good film|pos", "a bad film|neg", "a long film|neg", "a short film|pos", "no film at all|neg"]
"""Text and label, no header."""
SWAPPED = ["|".join(reversed(line.split("|"))) for line in LINES]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("text|label", ("text", "label")), ("Label|Text", ("Text", "Label")), ("sentence|y", ("sentence", "y")),
        ("utterance|label", ("utterance", "label")), ("text|stars", ("text", "stars")),
        ("title|body", ("title", "body")),  # two texts by name: the first one, and what is left
    ],
)  # fmt: skip
def test_usual_names(first, expected):
    text, label = expected
    assert found(first, *LINES) == Columns(text, (label,), True)


def test_a_text_has_the_first_usual_name():
    lines = ["3|a good film|more|pos", "4|a bad film|more|neg"]
    assert found("id|body|title|class", *lines) == Columns("title", ("class",), True)


def test_without_a_header():
    assert found(*LINES) == Columns(0, (1,), False)
    assert found(*SWAPPED) == Columns(1, (0,), False)


def test_a_header_without_usual_names():
    assert found("utterance|intent", *LINES) == Columns("utterance", ("intent",), True)
    assert found("intent|utterance", *SWAPPED) == Columns("utterance", ("intent",), True)


@pytest.mark.parametrize(
    "first",
    [
        "a fine film|pos",  # a label that there is
        "an unusual film of many words|odd",  # a class with one text: the text is too long for a name
        "question|pos",  # a usual name, but ...
    ],
)
def test_first_rows_that_are_no_header(first):
    assert found(first, *LINES, "question|neg") == Columns(0, (1,), False)


def test_a_class_with_one_text_leaves_the_header_unknown():
    assert not found("short|odd", *LINES, "another one|rare", "a film again|pos").header


def warned(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_first_line_that_is_perhaps_a_header_gives_a_warning(caplog):
    first = "How did you like the film?|Rating"
    expected = (
        "x.csv: is the first line a header? Its label 'Rating' is in no other row. If it is one, type "
        "data.header=true, otherwise data.header=false"
    )
    assert not found(first, *LINES).header
    assert warned(caplog) == [expected]
    caplog.clear()
    for header in (True, False):
        found(first, *LINES, header=header)
    found(first, *LINES, "a film once more|rare", text=0)
    found(first, "a good film|3", "a bad film|3", labels=[1], text=0, classes=FiniteNumbers())
    assert not warned(caplog)


@pytest.mark.parametrize("header", [True, False])
def test_a_given_header_counts(header):
    assert found("x|z", *LINES, header=header).header is header
    assert found("text|label", *LINES, header=header).header is header


def test_given_columns():
    lines = ["u|v|w", "1|a|x", "2|b|x", "3|c|y", "4|d|y"]
    assert found(*lines, text="v", labels=["w"]) == Columns("v", ("w",), True)
    assert found(*lines, text=1, labels=[2], header=False) == Columns(1, (2,), False)
    assert found(*lines, text=1, labels=[2]) == Columns("v", ("w",), True)  # "w" occurs only once
    assert found("u|w", "a|x", "b|x", text="u") == Columns("u", ("w",), True)
    assert found("v|x|y", "a|0|1", "b|1|1", labels=["x", "y"]) == Columns("v", ("x", "y"), True)
    assert found("v|x|y", "a|0|1", "b|1|1", text=0, labels=[1, 2]) == Columns("v", ("x", "y"), True)
    assert found("a|0|1", "b|1|1", text=0, labels=[1, 2]) == Columns(0, (1, 2), False)


def test_names_that_cannot_be_used_become_positions():
    assert found("text||", "a|x|1", "b|x|2", labels=[1], header=True) == Columns("text", (1,), True)


def test_the_classes_of_a_model_show_the_label():
    assert found("nice|pos", "bad|neg", classes=["neg", "pos"]) == Columns(0, (1,), False)
    assert found("pos|nice", "neg|bad", classes=["neg", "pos"]) == Columns(1, (0,), False)
    assert found("what|how", "nice|pos", "bad|neg", classes=["neg", "pos"]) == Columns("what", ("how",), True)


def test_columns_that_cannot_be_found_are_listed():
    with pytest.raises(UsageError) as caught:
        found("id|utterance|intent", "1|turn the light on|light", "2|turn it off|light", "3|play a song|music")
    assert str(caught.value).splitlines() == [
        "x.csv has 3 columns, and their names do not say what they hold:",
        "  column 0, such as 'id'",
        "  column 1, such as 'utterance'",
        "  column 2, such as 'intent'",
        "Type data.text_column=<column with the text> data.label_column=<column with the label> "
        "(a number; or give the name, if the first line has names)",
    ]
    with pytest.raises(UsageError, match=r"(?s)'id', such as '1'.*Type data.label_column=<column with the label> \("):
        found("id|text|intent", "1|turn the light on|light")
    with pytest.raises(UsageError, match="2 columns"):  # as many labels as texts
        found("a|x", "b|y", "c|z")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "v"}, "data.text_column=v: x.csv has no such column"),
        ({"text": "tex"}, "did you mean 'text'"),
        ({"text": 2}, "data.text_column=2: x.csv has 2 columns: give a number from 0 to 1"),
        ({"text": -1}, "from 0 to 1"),
        ({"text": 1, "labels": [1]}, "data.text_column and data.label_column are both column 'label'"),
        ({"text": "text", "header": False}, "data.header=false: without a header, give the position of 'text'"),
    ],
)
def test_given_columns_that_cannot_be(options, message):
    with pytest.raises(UsageError, match=message):
        found("text|label", *LINES, **options)


def test_no_rows():
    bad = {1: "3 columns in place of 2", 3: "not UTF-8", 4: "not UTF-8"}
    message = r"x\.csv has no row that can be used \(2 rows, such as line 3: not UTF-8; save the file as UTF-8\)"
    with pytest.raises(UsageError, match=message):
        find_columns(Table(Path("x.csv"), [], bad), TextTable.content, None, None, None)


def test_a_header_that_cannot_be_used():
    unusable = replace(table("a|x", "b|y"), bad={0: "not UTF-8"})
    with pytest.raises(UsageError, match=r"correct it, or give data\.header=false if it is none"):
        find_columns(unusable, TextTable.content, None, None, True)


def test_the_log_says_it_in_one_line(caplog):
    caplog.set_level("INFO")
    found("text|label", *LINES)
    found(*LINES)
    assert caplog.messages == [
        "x.csv: the text is in column 'text', the label in column 'label'; the first line is a header",
        "x.csv: the text is in column 0, the label in column 1; there is no header",
    ]
