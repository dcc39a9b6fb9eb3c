"""Writes predictions as CSV, JSON or JSON lines: one row per sample, as soon as its prediction is known."""

import csv
import io
import json
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TextIO

from headstart.inference.answers import Answers, Pairs


@dataclass(frozen=True)
class Prediction:
    """The prediction for one sample.

    Attributes:
        file: the name of its file as given; with the line if the file holds several samples.
        pairs: names and probabilities or numbers (`answers.py`); empty for an unreadable sample.
        error: why it cannot be read, or None.
        labels: names of the labels above their threshold; None: the model gives one class.
        sample: the sample itself, if the rows show it.
    """

    file: str
    pairs: Pairs = ()
    error: str | None = None
    labels: Sequence[str] | None = None
    sample: str | None = None


class RowWriter(ABC):
    """Writes predictions to a stream; after an interruption the stream holds only complete rows.

    Args:
        stream: a text stream, opened with `newline=""`.
        answers: the kind of answer.
        shown: name of the column or field with the sample itself; None: there is none.
        several: whether there is a column or field with the labels above their threshold.
    """

    def __init__(self, stream: TextIO, answers: Answers, shown: str | None = None, several: bool = False):
        self.stream, self.answers, self.shown, self.several = stream, answers, shown, several
        self.any = False
        self._write(self.opening())

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Writes one row per prediction; an interruption waits until all are written."""
        text = "".join(self.row(prediction) for prediction in predictions)
        self._write(text)

    def close(self) -> None:
        """Writes the text after the last row; the stream stays open."""
        self._write(self.closing())

    def _write(self, text: str) -> None:
        with signals_held():
            self.stream.write(text)
            self.stream.flush()

    def opening(self) -> str:
        """The text before the first row."""
        return ""

    def closing(self) -> str:
        """The text after the last row."""
        return ""

    @abstractmethod
    def row(self, prediction: Prediction) -> str:
        """One prediction as text."""


class CSVRows(RowWriter):
    """`file,class_1,probability_1,...,error`; numbers have a column each, `file,<name>,...,error`.

    For an unreadable file all fields but `file` and `error` are empty. With several labels per sample there is a column
    `labels`: the ones above their threshold, as `a|b`.
    """

    def opening(self) -> str:
        """The header."""
        labels = ["labels"] if self.several else []
        shown = [self.shown] if self.shown else []
        return _csv_line(["file", *shown, *labels, *self.answers.columns(), "error"])

    def row(self, prediction: Prediction) -> str:
        """One line, or more if the name of the file has line breaks."""
        fields = self.answers.cells(prediction.pairs)
        fields += [""] * (len(self.answers.columns()) - len(fields))
        sample = [prediction.sample or ""] if self.shown else []
        labels = ["|".join(prediction.labels or ())] if self.several else []
        return _csv_line([prediction.file, *sample, *labels, *fields, prediction.error or ""])


class JSONLines(RowWriter):
    """One object per line: `{"file": ..., "predictions": [{"class": ..., "probability": ...}, ...], "error": null}`.

    For numbers, `"numbers": {<name>: ..., ...}` takes the place of the predictions.
    """

    def row(self, prediction: Prediction) -> str:
        """One line."""
        return _json(prediction, self.answers, self.shown) + "\n"


class JSONList(RowWriter):
    """The objects of `JSONLines` as one list; the closing bracket is written even after an interruption."""

    def opening(self) -> str:
        """The opening bracket."""
        return "["

    def row(self, prediction: Prediction) -> str:
        """One line, after the comma that ends the previous line."""
        before, self.any = ",\n" if self.any else "\n", True
        return before + _json(prediction, self.answers, self.shown)

    def closing(self) -> str:
        """The closing bracket."""
        return "\n]\n"


FORMATS: dict[str, type[RowWriter]] = {"csv": CSVRows, "json": JSONList, "jsonl": JSONLines}


def _csv_line(fields: Sequence[str]) -> str:
    line = io.StringIO()
    # csv quotes only the characters of its own line ending, so with "\n" a field with "\r" would not be quoted
    csv.writer(line, lineterminator="\r\n").writerow(fields)
    return line.getvalue().removesuffix("\r\n") + "\n"


def plain(prediction: Prediction, answers: Answers, shown: str | None) -> dict[str, Any]:
    """A prediction as an object of JSON; `shown`: the field with the sample itself, if there is one."""
    sample = {shown: prediction.sample} if shown else {}
    labels = {} if prediction.labels is None else {"labels": list(prediction.labels)}
    answer = labels | answers.plain(prediction.pairs)
    return {"file": prediction.file, **sample, **answer, "error": prediction.error}


def _json(prediction: Prediction, answers: Answers, shown: str | None) -> str:
    content = plain(prediction, answers, shown)
    text = json.dumps(content, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not valid text: JSON has no bytes, only escapes
        return json.dumps(content)
    return text


@contextmanager
def signals_held() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM until the block is done, so that it writes complete rows."""
    if threading.current_thread() is not threading.main_thread():  # Python handles signals only in the main thread
        yield
        return
    received: list[int] = []

    def hold(number: int, frame: FrameType | None) -> Any:
        received.append(number)

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)
