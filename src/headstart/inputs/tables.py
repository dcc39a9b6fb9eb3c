"""Reads tables from files: CSV, TSV, JSON lines and Parquet. All values become text.

Labels are names: `1` and `01` are two classes, and so are `1` and `1.0`. A number of JSON is the text that is in the
file (`1.0` stays `1.0`), `true` and `false` are these words, `null` and NaN are an empty text. Lists and objects become
JSON.
"""

import codecs
import csv
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from headstart.errors import UsageError, counted, listed, nearest
from headstart.files import TABLE_SUFFIXES, large_fields, no_key_twice
from headstart.inputs.base import UnreadableInput
from headstart.inputs.opening import HALF_CHARACTER, MAX_BYTES, SAVE_AS_UTF8, UTF16_MARKS, open_file

log = logging.getLogger(__name__)

READABLE = (*TABLE_SUFFIXES, ".txt")
"""Endings of files that are read as tables. A `.txt` file needs tabs between its columns."""
LINES_COMPARED = 100
DELIMITERS = ",;\t"
"""Delimiters that a `.csv` file may have; the first one counts if two are equally frequent."""
EXCEL_DELIMITER = re.compile('"?sep=([,;:|\t])"?', re.IGNORECASE)
"""A first line that tells Excel the delimiter of a `.csv` file."""
MOST_REREAD = 20
"""How often the lines of a CSV file are read again, on average, because quotes are unbalanced."""
MOST_VALUES = 20_000_000
"""Values of a table: each one takes more memory than in the file, so a small file could fill the memory."""
FEW_VALUES, LITTLE_TEXT, MOST_TIMES_LONGER = 1_000_000, 2 * 10**8, 100
"""A Parquet file stores a value once for many rows. It may have a value per byte, and 100 times its length of text; a
small file may have this number of values, and of characters of text."""
MOST_NAMES = 1000
"""Different keys of JSON lines: each one is a column, in which every row has a value."""
MOST_ROWS_AT_ONCE = 2**16
OF_TEXTS = {"PLAIN", "PLAIN_DICTIONARY", "RLE", "RLE_DICTIONARY", "BIT_PACKED"}
"""Encodings of texts in Parquet that can be read as a list of different texts and the place of each row's text."""
NUL = "\udc00"
"""Stands for a NUL character, which the csv module of Python 3.10 refuses. No UTF-8 file has it."""
NOT_UTF8 = "not UTF-8"
"""Why a row with other bytes cannot be used."""
_UNUSABLE = re.compile("[\0\ud800-\udfff]")


class ListText(str):
    """A list of JSON lines or Parquet as text; a text that only looks like one is no `ListText`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `place` is the number of the line at which it begins, or the number of the row in Parquet; from 1."""

    place: int
    values: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
        file: the file.
        rows: the usable rows; all have the same number of values.
        bad: the place of each other row, and the reason.
        names: the names of the columns; None if the file has none, or has them in its first row.
        unit: what a place counts: `line` or `row`.
    """

    file: Path
    rows: list[Row]
    bad: dict[int, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    unit: str = "line"

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.rows[0].values) if self.rows else len(self.names or ())

    def column(self, index: int) -> list[str]:
        """The values of a column."""
        return [row.values[index] for row in self.rows]

    def with_header(self, otherwise: str = "") -> "Table":
        """The same table, whose first row holds the names of the columns.

        Args:
            otherwise: what to do if the first row is no header, for messages.

        Raises:
            UsageError: the first row cannot be used.
        """
        first = self.rows[0].place if self.rows else None
        before = [place for place in self.bad if first is None or place < first]
        if before:
            place = min(before)
            raise UsageError(
                f"{self.file}, {self.unit} {place}: the header cannot be used ({self.bad[place]}): correct it"
                f"{otherwise}"
            )
        if first is None:
            raise UsageError(f"{self.file} is empty")
        names = tuple(name.strip() for name in self.rows[0].values)
        return replace(self, rows=self.rows[1:], names=names)

    def position(self, key: str, wanted: int | str) -> int:
        """The position of a column.

        Args:
            key: the setting that names the column, for messages.
            wanted: its name, or its position from 0.

        Raises:
            UsageError: there is no such column, or there are two.
        """
        given = f"{key}={wanted}: {self.file}"
        if isinstance(wanted, int):
            if not 0 <= wanted < self.width:
                raise UsageError(f"{given} has {self.width} columns: give a number from 0 to {self.width - 1}")
            return wanted
        names = self.names or ()
        if wanted not in names:
            has = listed(names) if names else "columns without names"
            raise UsageError(f"{given} has no such column{nearest(wanted, names) or '.'} It has {has}")
        if names.count(wanted) > 1:
            places = [place for place, name in enumerate(names) if name == wanted]
            raise UsageError(f"{given} has {len(places)} columns of this name: give {key}={places[0]} or {places[1]}")
        return names.index(wanted)


def read_table(file: Path) -> Table:
    """All rows of a table. Rows that cannot be used are in `bad`; blank lines are skipped.

    Raises:
        UsageError: the file cannot be opened, is too large, or is no table.
    """
    suffix = file.suffix.lower()
    if suffix not in READABLE:
        raise UsageError(f"{file} is no table: give a file that ends in {', '.join(READABLE)}")
    try:
        with open_file(file) as stream:
            if suffix == ".parquet":
                return _from_parquet(file, stream)
            text = _decoded(file, stream.read())
    except UnreadableInput as error:
        raise UsageError(f"{file}: {error.reason}") from error
    _check_number(file, max(text.count("\n"), text.count("\r")), "line")
    if suffix in (".jsonl", ".ndjson"):
        return _from_json_lines(file, text)
    if suffix == ".csv":
        return _from_csv(file, text)
    return _from_tabs(file, text)


def _check_number(file: Path, number: int, noun: str) -> None:
    """Raises a UsageError if a table has too many values or lines."""
    if number > MOST_VALUES:
        raise UsageError(
            f"{file} has {counted(number, noun)}, at most {MOST_VALUES:,} are read: give a table with fewer rows, or "
            "only the columns with the samples and their labels"
        )


def _decoded(file: Path, content: bytes) -> str:
    """The text; bytes that are not UTF-8 become surrogates, which `_reason` finds in their row."""
    if content.startswith(UTF16_MARKS):
        raise UsageError(f"{file} is {SAVE_AS_UTF8}")
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The number of each line, from 1, and the line; a line ends at `\\n` or `\\r\\n`, blank lines are left out."""
    if "\n" not in text:
        text = text.replace("\r", "\n")  # as Macintosh computers wrote until 2001
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line:
            yield number, line


def _from_tabs(file: Path, text: str) -> Table:
    """Columns between tabs. A quote is an ordinary character: texts with one quote would swallow the next rows."""
    _check_number(file, text.count("\t") + text.count("\n"), "value")
    rows = [(number, line.split("\t")) for number, line in _lines(text)]
    if rows and file.suffix.lower() == ".txt" and len(rows[0][1]) == 1:
        raise UsageError(
            f"{file} has no tabs, so it is no table: for one text in each file, give data=text_folder and the folder"
        )
    _warn_of_quotes(file, [values for _, values in rows[:LINES_COMPARED]])
    return _same_width(file, rows, {})


def _warn_of_quotes(file: Path, rows: Sequence[Sequence[str]]) -> None:
    """Warns if most of these rows have a value in quotes, as programs write it that expect CSV."""
    quoted = sum(any(len(value) > 1 and value[0] == value[-1] == '"' for value in values) for values in rows)
    if 2 * quoted > len(rows):
        log.warning(
            "%s: most rows have a value in quotes, and the quotes stay in the values. If they enclose the values, save "
            "the table as .csv",
            file,
        )


def _from_csv(file: Path, text: str) -> Table:
    """Columns as in RFC 4180: a value in quotes may hold the delimiter and line breaks, and a quote that is doubled."""
    lines = list(io.StringIO(text.replace("\0", NUL), newline=""))
    given = EXCEL_DELIMITER.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    delimiter = given[1] if given else _delimiter([line for line in lines if line.strip()][:LINES_COMPARED])
    rows: list[tuple[int, list[str]]] = []
    bad: dict[int, str] = {}
    start = 1 if given else 0
    reread = number = 0
    with large_fields():
        while start < len(lines):
            reader = csv.reader((lines[i] for i in range(start, len(lines))), delimiter=delimiter, strict=True)
            begin = start
            try:
                for values in reader:
                    if values:
                        rows.append((begin + 1, values))
                        number += len(values)
                        _check_number(file, number, "value")
                    begin = start + reader.line_num
                break
            except csv.Error as error:
                bad[begin + 1] = _quote_reason(str(error))
                reread += start + reader.line_num - begin
            if reread > MOST_REREAD * len(lines):
                raise UsageError(
                    f"{file}, line {begin + 1}: too many unbalanced quotes. If a quote is an ordinary character in "
                    "this file, save it with tabs between the columns, as .tsv"
                )
            start = begin + 1  # the line is lost, those that its quote would swallow are not
    return _same_width(file, rows, bad)


def _quote_reason(error: str) -> str:
    if "end of data" in error:
        return "a quote opens here and is never closed"
    if "expected after" in error:
        return "unbalanced quotes (a quote inside a value in quotes has to be doubled)"
    return error


def _delimiter(lines: list[str]) -> str:
    """The delimiter of a table: the one in the first line, outside quotes.

    If there are several, it is the one of which most lines have the same number as the first; then the most frequent.
    """
    outside = [re.sub('"[^"]*"', "", line) for line in lines] or [""]
    found = [each for each in DELIMITERS if each in outside[0]] or [DELIMITERS[0]]

    def alike(delimiter: str) -> tuple[int, int]:
        number = outside[0].count(delimiter)
        return sum(line.count(delimiter) == number for line in outside), number

    return max(found, key=alike)


def _same_width(file: Path, rows: Iterable[tuple[int, Sequence[str]]], bad: dict[int, str]) -> Table:
    """The rows that have the most frequent number of columns; of two equally frequent numbers, the first one counts."""
    rows = list(rows)
    counts = Counter(len(values) for _, values in rows).most_common(1)
    width = counts[0][0] if counts else 0
    wrong = {place: f"{len(v)} columns in place of {width}" for place, v in rows if len(v) != width}
    return _usable(Table(file, [Row(place, tuple(v)) for place, v in rows if len(v) == width], bad | wrong))


def _usable(table: Table) -> Table:
    """The table without the rows that hold something else than text."""
    reasons = {row.place: reason for row in table.rows if (reason := _reason(row.values))}
    kept = [row for row in table.rows if row.place not in reasons] if reasons else table.rows
    return replace(table, rows=kept, bad=dict(sorted((table.bad | reasons).items())))


def _reason(values: Sequence[str]) -> str | None:
    found = _UNUSABLE.search("".join(values))
    if found is None:
        return None
    if found[0] in ("\0", NUL):
        return "holds a NUL character"
    return NOT_UTF8 if "\udc80" <= found[0] <= "\udcff" else HALF_CHARACTER


def _from_json_lines(file: Path, text: str) -> Table:
    """One JSON object per line. The columns are all keys, in the order in which they appear."""
    found: dict[int, dict[str, str]] = {}
    bad: dict[int, str] = {}
    names: dict[str, None] = {}
    for number, line in _lines(text):
        if not line.strip():
            continue
        try:
            found[number] = {key: as_text(value) for key, value in _json_object(line).items()}
        except ValueError as error:
            bad[number] = f"invalid JSON ({error})"
            continue
        except RecursionError:
            bad[number] = "too many lists or objects inside each other"
            continue
        names |= dict.fromkeys(found[number])
        if len(names) > MOST_NAMES:
            raise UsageError(
                f"{file}, line {number}: up to this line there are {len(names):,} different keys, and at most "
                f"{MOST_NAMES:,} are read. Each key is a column: write the names of columns as keys, not values"
            )
    _check_number(file, len(found) * len(names), "value")
    rows = [Row(number, tuple(values.get(name, "") for name in names)) for number, values in found.items()]
    return _usable(Table(file, rows, bad, tuple(names)))


def _json_object(line: str) -> dict[str, Any]:
    value = json.loads(line, parse_int=str, parse_float=str, parse_constant=_constant, object_pairs_hook=no_key_twice)
    if not isinstance(value, dict):
        raise ValueError('no object: write a line such as {"text": "...", "label": "..."}')
    return value


def _constant(name: str) -> str | None:
    """`Infinity` and `-Infinity` as text; `NaN` stands for no value, as pandas writes it."""
    return None if name == "NaN" else name


def as_text(value: Any) -> str:
    """A value of JSON or Parquet as text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        text = json.dumps(value, ensure_ascii=False, default=str)
        return ListText(text) if isinstance(value, list) else text
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"({len(value)} bytes)"
    text = str(value)
    return "" if text == "nan" else text  # a number that is NaN, which stands for no value


def _from_parquet(file: Path, stream: BinaryIO) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f'{file} needs the package pyarrow: pip install -e ".[parquet]"') from error
    try:
        size = stream.seek(0, os.SEEK_END)
        source = pyarrow.parquet.ParquetFile(stream)
        _check_parquet(file, source.metadata, size)
        most = min(MAX_BYTES, max(MOST_TIMES_LONGER * size, LITTLE_TEXT))
        texts, at_once = _way_to_read(source)
        source = pyarrow.parquet.ParquetFile(stream, metadata=source.metadata, read_dictionary=texts)
        names = tuple(source.schema_arrow.names)
        values: list[tuple[str, ...]] = []
        length = 0
        for batch in source.iter_batches(at_once):
            columns = list(map(_parquet_column, batch.columns))
            for row in zip(*columns, strict=True):
                values.append(tuple(map(as_text, row)))
                length += sum(map(len, values[-1]))
                if length > most:
                    raise UsageError(
                        f"{file} holds more than {most / 1e9:.1f} GB of text, which is the most for a file of its size"
                    )
            _check_number(file, len(values) * max(len(names), 1), "value")  # the file may hold more than it says
    except UsageError:
        raise
    except Exception as error:  # pyarrow raises errors of many classes for a damaged file
        raise UsageError(f"{file} cannot be read as Parquet: {(str(error).splitlines() or ['damaged'])[0]}") from error
    rows = [Row(number, row) for number, row in enumerate(values, start=1)]
    return _usable(Table(file, rows, {}, names, "row"))


def _check_parquet(file: Path, metadata: Any, length: int) -> None:
    """Raises a UsageError if a Parquet file of this length holds too much, by what it says of itself."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    if size > MAX_BYTES:
        raise UsageError(f"{file} holds {size / 1e9:.1f} GB, at most {MAX_BYTES / 1e9:.1f} GB are read")
    values = sum(group.column(column).num_values for group in groups for column in range(group.num_columns))
    values = max(values, metadata.num_rows)  # values also count those in lists
    _check_number(file, values, "value")
    if values > max(length, FEW_VALUES):
        raise UsageError(
            f"{file} has {length:,} bytes and {values:,} values: such a small file could fill the memory. Save the "
            "table as CSV"
        )


def _way_to_read(source: Any) -> tuple[list[str], int]:
    """The columns of a Parquet file that are read as a list of different texts, and the number of rows at once.

    A file may store a text once for all rows. Such texts are not copied for each row. Columns of other kinds cannot be
    read in this way. If there are some, the rows at once are so few that the longest possible value may be in each.
    """
    import pyarrow

    kinds = {field.name: field.type for field in source.schema_arrow}
    is_text = (pyarrow.types.is_string, pyarrow.types.is_large_string)
    texts, others, largest = set(), set(), 1
    for group in map(source.metadata.row_group, range(source.metadata.num_row_groups)):
        largest = max(largest, group.total_byte_size)
        for column in map(group.column, range(group.num_columns)):
            path, kind = column.path_in_schema, kinds.get(column.path_in_schema)
            if kind is not None and any(is_kind(kind) for is_kind in is_text) and OF_TEXTS.issuperset(column.encodings):
                texts.add(path)
            elif column.physical_type.endswith("BYTE_ARRAY"):
                others.add(path)
    if others:
        return [], min(max(MAX_BYTES // 8 // largest, 1), MOST_ROWS_AT_ONCE)
    return sorted(texts), MOST_ROWS_AT_ONCE


def _parquet_column(column: Any) -> list[Any]:
    """The values of an Arrow array; text that is not UTF-8 gets surrogates, as in the other formats."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        different = _parquet_column(column.dictionary)
        return [None if place is None else different[place] for place in column.indices.to_pylist()]
    if not (pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)):
        return column.to_pylist()
    values = column.cast(pyarrow.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]
