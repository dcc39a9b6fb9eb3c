import csv
import io
import json
import os
import signal

import pytest

from headstart.inference.answers import RankedClasses
from headstart.inference.rows import FORMATS, Prediction, signals_held

ROWS = [
    Prediction("a, b.jpg", [("cat", 0.75), ("größer", 1 / 3e7)]),
    Prediction("bad.jpg", error="truncated"),
]


def written(form, *chunks):
    stream = io.StringIO()
    writer = FORMATS[form](stream, RankedClasses(["cat", "größer"], 2))
    for chunk in chunks:
        writer.write(chunk)
    writer.close()
    return stream.getvalue()


def test_csv():
    rows = list(csv.DictReader(io.StringIO(written("csv", ROWS))))
    assert rows[0] == {
        "file": "a, b.jpg", "class_1": "cat", "probability_1": "0.75", "class_2": "größer",
        "probability_2": "3.33333e-08", "error": "",
    }  # fmt: skip
    assert rows[1]["class_1"] == rows[1]["probability_2"] == ""
    assert rows[1]["error"] == "truncated"


def test_a_file_name_with_line_breaks_is_one_row():
    names = ["new\nline.jpg", "carriage\rreturn.jpg", 'quote".jpg']
    lines = written("csv", [Prediction(name, error="empty file") for name in names])
    assert [row["file"] for row in csv.DictReader(io.StringIO(lines, newline=""))] == names


@pytest.mark.parametrize("chunks", [[ROWS], [ROWS[:1], ROWS[1:]], [ROWS, []]])
def test_json_is_one_list_and_json_lines_are_its_items(chunks):
    expected = [
        {"file": "a, b.jpg", "error": None,
         "predictions": [{"class": "cat", "probability": 0.75}, {"class": "größer", "probability": 3.33333e-08}]},
        {"file": "bad.jpg", "predictions": [], "error": "truncated"},
    ]  # fmt: skip
    assert json.loads(written("json", *chunks)) == expected
    assert [json.loads(line) for line in written("jsonl", *chunks).splitlines()] == expected
    assert "größer" in written("jsonl", *chunks)


def test_json_without_rows_is_an_empty_list():
    assert json.loads(written("json")) == []


def test_a_file_name_that_is_no_text_can_be_written_and_found_again():
    name = os.fsdecode(b"\xff.jpg")
    text = written("jsonl", [Prediction(name, error="gone")])
    text.encode()
    assert json.loads(text)["file"] == name


def test_an_interruption_waits_for_the_end_of_a_row():
    done = []

    def write():
        with signals_held():
            signal.raise_signal(signal.SIGINT)
            done.append("written")
        done.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
