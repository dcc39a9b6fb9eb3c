"""Predictions and metrics as Python values, DataFrames and HTML."""

import sys

import pytest

from headstart.api.results import LONGEST_SIDE, Metrics, Predictions, as_jpeg
from headstart.errors import UsageError
from headstart.inference.answers import NamedNumbers, RankedClasses
from headstart.inference.rows import Prediction


@pytest.fixture
def two():
    rows = [
        Prediction("a.jpg", [("cat", 0.9), ("<dog>", 0.1)]),
        Prediction("b.jpg", error="truncated"),
    ]
    return Predictions(rows, RankedClasses(["cat", "<dog>"], 2), None, [b"jpeg", b""])


def test_a_prediction_is_the_line_of_the_command(two):
    assert len(two) == 2
    assert two[0] == {
        "file": "a.jpg",
        "predictions": [{"class": "cat", "probability": 0.9}, {"class": "<dog>", "probability": 0.1}],
        "error": None,
    }
    assert two[-1] == {"file": "b.jpg", "predictions": [], "error": "truncated"}
    assert two.classes == ["cat", None]
    assert two[:1].classes == ["cat"]
    assert repr(two) == "2 predictions: cat 0.9, b.jpg: truncated"


def test_a_table_has_the_columns_of_the_command(two):
    table = two.to_pandas()
    assert list(table) == ["file", "class_1", "probability_1", "class_2", "probability_2", "error"]
    assert table.probability_1[0] == 0.9
    assert table.error[1] == "truncated"


def test_numbers_labels_and_texts_have_their_columns():
    numbers = Predictions([Prediction("[0]", [("x", 1.5), ("y", -2.0)])], NamedNumbers(["x", "y"]), None, [])
    assert repr(numbers) == "1 prediction: x 1.5 y -2"
    assert numbers.to_pandas()[["x", "y"]].to_numpy().tolist() == [[1.5, -2.0]]
    row = Prediction("[0]", [("a", 0.6), ("b", 0.7)], labels=["a", "b"], sample="a text")
    labelled = Predictions([row], RankedClasses(["a", "b"], 2), "text", [])
    assert labelled.to_pandas()[["text", "labels"]].to_numpy().tolist() == [["a text", "a|b"]]


def test_without_pandas_the_message_says_what_to_install(two, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        two.to_pandas()


def test_a_notebook_shows_names_as_text(two):
    shown = two._repr_html_()
    assert '<img src="data:image/jpeg;base64,' in shown
    assert "&lt;dog&gt;" not in shown  # only the most probable class
    assert "cat 0.9" in shown
    assert "<script>" not in Predictions([Prediction("<script>", [("cat", 1.0)])], two._answers, None, [])._repr_html_()


def test_a_notebook_shows_the_figures_of_an_evaluation_in_small(tmp_path):
    from PIL import Image

    Image.new("RGB", (3000, 2000)).save(tmp_path / "confusion.png")
    (tmp_path / "metrics.csv").write_text("metric,value,low,high\nacc,0.5,0.4,0.6\n")
    metrics = Metrics({"test/acc": 0.5}, tmp_path)
    assert dict(metrics) == {"test/acc": 0.5}
    assert repr(metrics) == "{'test/acc': 0.5000}"
    assert metrics.to_pandas().low["acc"] == 0.4
    assert metrics._repr_html_().count("<img") == 1
    assert len(metrics._repr_html_()) < 50_000
    (tmp_path / "mistakes.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert metrics._repr_html_().count("<img") == 1, "a damaged figure is left out"
    with Image.open(tmp_path / "confusion.png") as image:
        assert max(Image.open(__import__("io").BytesIO(as_jpeg(image, LONGEST_SIDE))).size) == LONGEST_SIDE


def test_a_part_keeps_each_picture_beside_its_row():
    rows = [Prediction(f"{number}.jpg", [("cat", 1.0)]) for number in range(20)]
    pictures = [str(number).encode() for number in range(12)]  # of the first rows only
    found = Predictions(rows, RankedClasses(["cat"], 1), None, pictures)
    assert found[-10:]._pictures == [b"10", b"11", *[b""] * 8]
