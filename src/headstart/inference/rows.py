"""Predictions as CSV, JSON or JSON lines, a picture a row, written as they come."""

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

DIGITS = 6  # significant ones of a probability


@dataclass(frozen=True)
class Prediction:
    """What is told of one file.

    Attributes:
        file: its name as it was given.
        ranked: class names and their probabilities, the most probable first; empty for an unreadable file.
        error: why it cannot be read, or None.
    """

    file: str
    ranked: Sequence[tuple[str, float]] = ()
    error: str | None = None


class RowWriter(ABC):
    """Writes predictions to a stream; whatever moment it is interrupted at, the stream holds whole rows.

    Args:
        stream: for text, opened with `newline=""`.
        top_k: classes a row.
    """

    def __init__(self, stream: TextIO, top_k: int):
        self.stream, self.top_k = stream, top_k
        self.any = False
        self._write(self.opening())

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Writes their rows, all of them or, after an interruption, none."""
        text = "".join(self.row(prediction) for prediction in predictions)
        self._write(text)

    def close(self) -> None:
        """Writes what follows the last row; the stream stays open."""
        self._write(self.closing())

    def _write(self, text: str) -> None:
        with signals_held():
            self.stream.write(text)
            self.stream.flush()

    def opening(self) -> str:
        """What precedes the first row."""
        return ""

    def closing(self) -> str:
        """What follows the last row."""
        return ""

    @abstractmethod
    def row(self, prediction: Prediction) -> str:
        """One prediction as text."""


class CSVRows(RowWriter):
    """`file,class_1,probability_1,...,error`; an unreadable file has empty fields and a reason."""

    def opening(self) -> str:
        """The header."""
        columns = [f"{what}_{rank}" for rank in range(1, self.top_k + 1) for what in ("class", "probability")]
        return _csv_line(["file", *columns, "error"])

    def row(self, prediction: Prediction) -> str:
        """One line, more only where a file's name has line breaks."""
        fields = [value for name, p in prediction.ranked for value in (name, f"{p:.{DIGITS}g}")]
        fields += [""] * (2 * self.top_k - len(fields))
        return _csv_line([prediction.file, *fields, prediction.error or ""])


class JSONLines(RowWriter):
    """One object a line: `{"file": ..., "predictions": [{"class": ..., "probability": ...}, ...], "error": null}`."""

    def row(self, prediction: Prediction) -> str:
        """One line."""
        return _json(prediction) + "\n"


class JSONList(RowWriter):
    """The objects of `JSONLines` as one list, which is closed also after an interruption."""

    def opening(self) -> str:
        """The bracket."""
        return "["

    def row(self, prediction: Prediction) -> str:
        """One line, with the comma that ends the line before it."""
        before, self.any = ",\n" if self.any else "\n", True
        return before + _json(prediction)

    def closing(self) -> str:
        """The other bracket."""
        return "\n]\n"


FORMATS: dict[str, type[RowWriter]] = {"csv": CSVRows, "json": JSONList, "jsonl": JSONLines}


def _csv_line(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(fields)  # for it quotes what its own ending consists of, no more
    return line.getvalue().removesuffix("\r\n") + "\n"


def _json(prediction: Prediction) -> str:
    ranked = [{"class": name, "probability": float(f"{p:.{DIGITS}g}")} for name, p in prediction.ranked]
    content = {"file": prediction.file, "predictions": ranked, "error": prediction.error}
    text = json.dumps(content, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no text: JSON has no bytes, only escapes
        return json.dumps(content)
    return text


@contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done: what is written in it is written whole."""
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to the main thread alone
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
