"""Finds the columns of a table that hold the text and the label, and whether its first row is a header."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from headstart.errors import UsageError
from headstart.inputs.tables import Table
from headstart.inputs.text.tables import TEXT_NAMES

log = logging.getLogger(__name__)

LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "y")
"""Usual names of the column with the label."""
MOST_WORDS = 3
"""Number of words that the name of a column has at most."""


@dataclass(frozen=True)
class Columns:
    """Names of columns, or positions from 0.

    Attributes:
        text: the column with the text.
        labels: the column with the label, or several columns of 0 and 1.
        header: whether the first row of a CSV or TSV file holds the names.
    """

    text: int | str
    labels: tuple[int | str, ...]
    header: bool

    def find(self, table: Table) -> tuple[Table, int, list[int]]:
        """The table with its names, the position of the text, and the positions of the labels.

        Raises:
            UsageError: the table has no such column.
        """
        if self.header and table.names is None:
            table = table.with_header()
        text = table.position("data.text_column", self.text)
        return table, text, [table.position("data.label_column", label) for label in self.labels]


def find_columns(
    table: Table,
    text: int | str | None,
    labels: Sequence[int | str] | None,
    header: bool | None,
    classes: Collection[str] | None = None,
) -> Columns:
    """The columns with the text and the labels. The log says which ones they are.

    Args:
        table: as it was read.
        text: the column that is given; None: find it.
        labels: the columns that are given; None: find one.
        header: whether the first row holds the names; None: find out.
        classes: the classes of an existing model.

    Raises:
        UsageError: the table is empty, or the columns cannot be found; the message says what to type.
    """
    if not table.rows:
        raise UsageError(f"{table.file} has no row that can be used{_first_reason(table)}")
    if table.names is None:
        name = next((given for given in (text, *(labels or ())) if isinstance(given, str)), None)
        if header is None:
            header = name is not None or is_header(table, text, labels, classes)
        if name is not None and not header:
            raise UsageError(f"data.header=false: without a header, give the position of {name!r}, from 0")
        if header:
            table = table.with_header()
    places = None if labels is None else [table.position("data.label_column", label) for label in labels]
    place = None if text is None else table.position("data.text_column", text)
    place, places = _complete(table, place, places, classes)
    if place in places:
        raise UsageError(f"data.text_column and data.label_column are both {_shown(table, place)} of {table.file}")
    _tell(table, place, places, bool(header))
    return Columns(_key(table, place), tuple(_key(table, each) for each in places), bool(header))


def is_header(
    table: Table, text: int | str | None, labels: Sequence[int | str] | None, classes: Collection[str] | None
) -> bool:
    """Whether the first row of a table holds the names of the columns.

    It does if a value is a usual name (`TEXT_NAMES`, `LABEL_NAMES`) that its column does not hold again. It also does
    if its label occurs in no other row, while every other label occurs at least twice or is one of `classes`, and its
    text has at most three words.
    """
    first, rest = table.rows[0].values, Table(table.file, table.rows[1:])
    usual = {*TEXT_NAMES, *LABEL_NAMES}
    for index, value in enumerate(first):
        if value.strip().lower() in usual and value not in rest.column(index):
            return True
    if not rest.rows:
        return False
    try:
        place, places = _complete(
            rest,
            None if text is None else rest.position("data.text_column", text),
            None if labels is None else [rest.position("data.label_column", label) for label in labels],
            classes,
        )
    except UsageError:
        return False
    if len(places) > 1:  # columns of 0 and 1
        return not any(first[index].strip() in ("0", "1") for index in places)
    counts = Counter(rest.column(places[0]))
    is_label = first[places[0]] in counts or first[places[0]] in (classes or ())
    others_are = all(count > 1 or label in (classes or ()) for label, count in counts.items())
    return not is_label and others_are and len(first[place].split()) <= MOST_WORDS


def _complete(
    table: Table, text: int | None, labels: list[int] | None, classes: Collection[str] | None
) -> tuple[int, list[int]]:
    """The positions of the text and the labels; those that are not given are found.

    Raises:
        UsageError: they cannot be found.
    """
    if text is None:
        text = _by_name(table, TEXT_NAMES, labels or [])
    if labels is None:
        label = _by_name(table, LABEL_NAMES, [] if text is None else [text])
        labels = None if label is None else [label]
    if table.width == 2 and text is None and labels is None:
        label = _label_of_two(table, classes)
        labels = None if label is None else [label]
    left = [index for index in range(table.width) if index not in (labels or [])]
    if text is None and labels is not None and len(left) == 1:
        text = left[0]
    if table.width == 2 and text is not None and labels is None:
        labels = [1 - text]
    if text is None or labels is None:
        raise UsageError(_question(table, text, labels))
    return text, labels


def _by_name(table: Table, usual: Sequence[str], taken: Collection[int]) -> int | None:
    names = [name.strip().lower() for name in table.names or ()]
    found = (names.index(name) for name in usual if name in names)
    return next((place for place in found if place not in taken), None)


def _label_of_two(table: Table, classes: Collection[str] | None) -> int | None:
    """The column whose values are classes, or which has at most half as many different values; None: neither is."""
    columns = [table.column(0), table.column(1)]
    if classes:
        numbers = [sum(value.strip() in classes for value in column) for column in columns]
        return None if numbers[0] == numbers[1] else int(numbers[1] > numbers[0])
    different = [len(set(column)) for column in columns]
    if 2 * min(different) > max(different):
        return None
    return different.index(min(different))


def _question(table: Table, text: int | None, labels: list[int] | None) -> str:
    """Lists the columns with an example of each, and says what to type."""
    missing = [
        *(["data.text_column=<column with the text>"] if text is None else []),
        *(["data.label_column=<column with the label>"] if labels is None else []),
    ]
    examples = table.rows[0].values if table.rows else ("",) * table.width
    lines = [f"  {_shown(table, index)}, such as {_short(value)}" for index, value in enumerate(examples)]
    kind = "the name of a column" if table.names else "a number; or give the name, if the first line has names"
    return "\n".join(
        [
            f"{table.file} has {table.width} columns, and their names do not say what they hold:",
            *lines,
            f"Type {' '.join(missing)} ({kind})",
        ]
    )


def _short(value: str, limit: int = 40) -> str:
    return repr(value if len(value) <= limit else value[: limit - 3] + "...")


def _shown(table: Table, index: int) -> str:
    return f"column {index}" if table.names is None else f"column {table.names[index]!r}"


def _key(table: Table, index: int) -> int | str:
    """The name of a column if it has one of its own, else its position."""
    unique = table.names is not None and table.names[index] and table.names.count(table.names[index]) == 1
    return table.names[index] if unique else index


def _tell(table: Table, text: int, labels: list[int], header: bool) -> None:
    names = " and ".join(_shown(table, label) for label in labels)
    first = ""
    if table.unit == "line" and table.file.suffix.lower() not in (".jsonl", ".ndjson"):
        first = "; the first line is a header" if header else "; there is no header"
    log.info("%s: the text is in %s, the label in %s%s", table.file.name, _shown(table, text), names, first)


def _first_reason(table: Table) -> str:
    return next((f" ({table.unit} {place}: {reason})" for place, reason in table.bad.items()), "")
