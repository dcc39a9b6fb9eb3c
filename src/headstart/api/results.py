"""The results of a trained run as Python values, as DataFrames and in notebooks."""

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from headstart.errors import UsageError
from headstart.files import relative_to_cwd

if TYPE_CHECKING:
    from pandas import DataFrame

    from headstart.inference.answers import Answers
    from headstart.inference.rows import Prediction

SHOWN_ROWS, SHOWN_PICTURES = 50, 12
"""The most rows and pictures of predictions that a notebook shows."""
ROW_HEIGHT = 64
"""Of a picture beside its prediction, in pixels."""
LONGEST_SIDE = 640
"""Of a figure in a notebook, in pixels: notebooks store their pictures."""


def pandas() -> Any:
    """The library pandas, which is optional.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("a DataFrame needs the library pandas: pip install pandas") from error
    return pandas


class Metrics(Mapping[str, float]):
    """The metrics of an evaluation, `<split>/<name>` -> value; a notebook shows the figures, too.

    Attributes:
        folder: with the tables and figures of the evaluation.
    """

    def __init__(self, values: Mapping[str, float], folder: Path):
        self._values = dict(values)
        self.folder = folder

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name!r}: {value:.4f}" for name, value in self.items()) + "}"

    def to_pandas(self) -> "DataFrame":
        """One row per metric: its value and the ends of its 95 % interval."""
        return pandas().read_csv(self.folder / "metrics.csv", index_col=0)

    def _repr_html_(self) -> str:
        figures = (self.folder / name for name in ("confusion.png", "numbers.png", "mistakes.png"))
        shown = "".join(_figure(file) for file in figures if file.is_file())
        return f"<pre>{html.escape(repr(self))}</pre>{shown}<p>{html.escape(relative_to_cwd(self.folder))}</p>"


class Predictions(Sequence[dict[str, Any]]):
    """The predictions of a trained run, in the order of the samples.

    Each is a dict, the same as a line of `predict.py format=jsonl`: `file`, `predictions` (a list of `class` and
    `probability`, the most probable first) or `numbers`, and `error` (None, or why the sample cannot be read).
    """

    def __init__(self, rows: "Sequence[Prediction]", answers: "Answers", shown: str | None, pictures: list[bytes]):
        self._rows, self._answers, self._shown, self._pictures = list(rows), answers, shown, pictures

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> "Predictions": ...

    def __getitem__(self, place: Any) -> Any:
        from headstart.inference.rows import plain

        if isinstance(place, slice):
            pictures = self._pictures + [b""] * (len(self) - len(self._pictures))  # only the first rows have one
            return Predictions(self._rows[place], self._answers, self._shown, pictures[place])
        return plain(self._rows[place], self._answers, self._shown)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        number = "1 prediction" if len(self) == 1 else f"{len(self)} predictions"
        return f"{number}: {', '.join(map(self._summary, self._rows[:10]))}{', ...' * (len(self) > 10)}"

    @property
    def classes(self) -> list[str | None]:
        """The most probable class of each sample; None for a sample that cannot be read."""
        return [row.pairs[0][0] if row.pairs else None for row in self._rows]

    def to_pandas(self) -> "DataFrame":
        """The columns of `predict.py format=csv`; numbers as numbers, and without rounding."""
        columns = self._answers.columns()
        table = []
        for row in self._rows:
            sample = {self._shown: row.sample} if self._shown else {}
            labels = {} if row.labels is None else {"labels": "|".join(row.labels)}
            answer: dict[str, Any] = dict.fromkeys(columns)
            answer |= zip(columns, self._answers.values(row.pairs), strict=False)  # empty for one that cannot be read
            table.append({"file": row.file, **sample, **labels, **answer, "error": row.error})
        return pandas().DataFrame(table)

    def _summary(self, row: "Prediction") -> str:
        if row.error is not None:
            return f"{row.file}: {row.error}"
        if row.labels is not None:
            return "|".join(row.labels) or "none"
        return " ".join(f"{name} {value:.3g}" for name, value in row.pairs[: self._answers.in_summary])

    def _repr_html_(self) -> str:
        lines = []
        for place, row in enumerate(self._rows[:SHOWN_ROWS]):
            jpeg = self._pictures[place] if place < len(self._pictures) else b""
            picture = _inline(jpeg, f' height="{ROW_HEIGHT}"') if jpeg else ""
            sample = (row.sample or "")[:200] or row.file
            lines.append(f"<tr><td>{picture}</td><td>{html.escape(sample)}</td>")
            lines.append(f"<td>{html.escape(self._summary(row))}</td></tr>")
        more = len(self) - SHOWN_ROWS
        rest = f"<p>... and {more} more</p>" if more > 0 else ""
        return f"<table>{''.join(lines)}</table>{rest}"


def _figure(file: Path) -> str:
    """A figure of a run for a notebook, smaller than its file; empty if it cannot be shown."""
    from headstart.display.page import picture_in

    picture = picture_in(file)
    return "" if picture is None else _inline(as_jpeg(picture, LONGEST_SIDE))


def as_jpeg(image: Any, side: int) -> bytes:
    """A PIL picture as JPEG, its longer side at most `side` pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _inline(jpeg: bytes, attributes: str = "") -> str:
    from headstart.display.page import data_uri

    return f'<img src="{data_uri(jpeg, "jpeg")}"{attributes}>'
