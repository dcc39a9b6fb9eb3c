"""Finds the columns of a table that hold the samples and the labels, and whether its first row is a header."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headstart.errors import UsageError
from headstart.inputs.tables import NOT_UTF8, Table

log = logging.getLogger(__name__)

LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "y")
"""Usual names of the column with the label."""
SPLIT_NAME = "split"
"""Usual name of a column with the split of each row."""
MOST_WORDS = 3
"""Number of words that the name of a column has at most."""
LARGEST = 3.4e38
"""Largest number in single precision."""
COMPARED = 100
"""Rows whose values show what a column holds."""
NO_HEADER = ", or give data.header=false if it is none"
"""What to do if the first row is taken for a header and is none."""
TRUTH = {"0": 0, "1": 1, "false": 0, "true": 1, "0.0": 0, "1.0": 1}
"""Values of a column of 0 and 1."""


@dataclass(frozen=True)
class Content:
    """The column with the samples of one kind.

    Attributes:
        key: the setting that names the column.
        word: the word for its values.
        names: usual names of the column, the first one that a table has counts.
        looks_right: whether a value is of this kind; None: all values are.
    """

    key: str
    word: str
    names: Sequence[str]
    looks_right: Callable[[str], bool] | None = None

    def fits(self, values: Sequence[str]) -> bool:
        """Whether the first values of a column, if not empty, are of this kind; False if any value would be."""
        shown = [value for value in values[:COMPARED] if value.strip()]
        return self.looks_right is not None and bool(shown) and all(map(self.looks_right, shown))


def finite_number(text: str) -> float | None:
    """The number that a text is; None if it is none, or not finite in single precision."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= LARGEST else None


class FiniteNumbers(Collection[str]):
    """All texts that are finite numbers; in place of the classes of a column that holds numbers."""

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and finite_number(text) is not None

    def __iter__(self) -> Iterator[str]:
        raise TypeError("there is no end of numbers")

    def __len__(self) -> int:
        return sys.maxsize


@dataclass(frozen=True)
class Columns:
    """Names of columns, or positions from 0.

    Attributes:
        sample: the column with the samples.
        labels: the column with the label, or several columns of 0 and 1.
        header: whether the first row of a CSV or TSV file holds the names.
    """

    sample: int | str
    labels: tuple[int | str, ...]
    header: bool

    def find(self, table: Table, key: str) -> tuple[Table, int, list[int]]:
        """The table with its names, the position of the samples, and the positions of the labels.

        Args:
            table: as it was read.
            key: the setting that names the column with the samples.

        Raises:
            UsageError: the table has no such column.
        """
        if self.header and table.names is None:
            table = table.with_header(NO_HEADER)
        sample = table.position(key, self.sample)
        return table, sample, [table.position("data.label_column", label) for label in self.labels]


def find_columns(
    table: Table,
    content: Content,
    sample: int | str | None,
    labels: Sequence[int | str] | None,
    header: bool | None,
    classes: Collection[str] | None = None,
    others: Mapping[str, int | str] | None = None,
) -> Columns:
    """The columns with the samples and the labels. The log says which ones they are.

    Args:
        table: as it was read.
        content: the kind of samples.
        sample: the column that is given; None: find it.
        labels: the columns that are given; None: find them.
        header: whether the first row holds the names; None: find out.
        classes: the classes of an existing model; `FiniteNumbers` if the labels are numbers.
        others: setting -> the column that it names, which holds neither samples nor labels.

    Raises:
        UsageError: the table is empty, or the columns cannot be found; the message says what to type.
    """
    if not table.rows:
        raise UsageError(f"{table.file} has no row that can be used{main_reason(table.unit, table.bad)}")
    search = _Search(content, sample, labels, others or {}, classes)
    if table.names is None:
        given = (sample, *(labels or ()), *search.others.values())
        name = next((column for column in given if isinstance(column, str)), None)
        if header is None:
            header = name is not None or search.finds_header(table)
        if name is not None and not header:
            raise UsageError(f"data.header=false: without a header, give the position of {name!r}, from 0")
        if header:
            table = table.with_header(NO_HEADER)
    place, places = search.columns(table)
    if place in places:
        raise UsageError(f"{content.key} and data.label_column are both {_shown(table, place)} of {table.file}")
    _tell(table, content, place, places, bool(header))
    named = tuple(_key(table, each) for each in places)
    return Columns(_key(table, place), named, header=table.names is not None)


@dataclass(frozen=True)
class _Search:
    """The search for the columns of a table; the arguments are described at `find_columns`."""

    content: Content
    sample: int | str | None
    labels: Sequence[int | str] | None
    others: Mapping[str, int | str]
    classes: Collection[str] | None

    def finds_header(self, table: Table) -> bool:
        """Whether the first row of a table holds the names of the columns.

        It does if a value is a usual name (of the samples or labels) that its column does not hold again, or if only
        the first value of a column is no sample of this kind. It also does if its label occurs in no other row, while
        every other label occurs at least twice or is a class of the model, and its text has at most three words; with
        a longer text, a warning asks for `data.header`. If the labels are numbers, it does if its label is none.
        """
        first, rest = table.rows[0].values, Table(table.file, table.rows[1:])
        usual = {*self.content.names, *LABEL_NAMES}
        for index, value in enumerate(first):
            if value.strip().lower() in usual and value not in rest.column(index):
                return True
        if not rest.rows:
            return False
        if samples := [index for index in range(rest.width) if self.content.fits(rest.column(index))]:
            return not any(self.content.looks_right(first[index]) for index in samples)
        try:
            place, places = self.columns(rest)
        except UsageError:
            return False
        if len(places) > 1:  # columns of 0 and 1, or of numbers
            values = self.classes if isinstance(self.classes, FiniteNumbers) else TRUTH
            return not any(first[index].strip().lower() in values for index in places)
        counts, known = Counter(rest.column(places[0])), self.classes or ()
        is_label = first[places[0]] in counts or first[places[0]] in known
        others_are = all(count > 1 or label in known for label, count in counts.items())
        if is_label or not others_are:
            return False
        is_short = len(first[place].split()) <= MOST_WORDS
        if not is_short and not isinstance(self.classes, FiniteNumbers):
            log.warning(
                "%s: is the first line a header? Its label %s is in no other row. If it is one, type data.header=true, "
                "otherwise data.header=false",
                *(table.file.name, _short(first[places[0]])),
            )
        return is_short

    def columns(self, table: Table) -> tuple[int, list[int]]:
        """The positions of the samples and the labels; what is not given is found.

        Raises:
            UsageError: they cannot be found.
        """
        taken = [table.position(key, other) for key, other in self.others.items()]
        taken += [index for index, name in enumerate(table.names or ()) if name.lower() == SPLIT_NAME]
        labels = None
        if self.labels is not None:
            labels = [table.position("data.label_column", label) for label in self.labels]
        if self.sample is not None:
            sample = table.position(self.content.key, self.sample)
        else:
            sample = self._find_sample(table, [*taken, *(labels or [])])
        if labels is None:
            usual = [name for name in LABEL_NAMES if name != "y" or "x" not in (table.names or ())]  # x, y: a place
            label = _by_name(table, usual, [*taken, *([] if sample is None else [sample])])
            labels = None if label is None else [label]
        if table.width == 2 and sample is None and labels is None:
            label = _label_of_two(table, self.classes)
            labels = None if label is None else [label]
        left = [index for index in range(table.width) if index not in (*taken, *(labels or ()), sample)]
        if sample is None and labels is not None and len(left) == 1:
            sample = left[0]
        if sample is not None and labels is None:
            labels = _labels_among(table, left)
        if sample is None or labels is None:
            raise UsageError(_question(table, self.content, sample, labels))
        return sample, labels

    def _find_sample(self, table: Table, taken: Collection[int]) -> int | None:
        by_name = _by_name(table, self.content.names, taken)
        if self.content.looks_right is None:
            return by_name
        fitting = [i for i in range(table.width) if i not in taken and self.content.fits(table.column(i))]
        if not fitting:
            return by_name
        return fitting[0] if len(fitting) == 1 else by_name if by_name in fitting else None


def _labels_among(table: Table, left: list[int]) -> list[int] | None:
    """The only column that is left, or all of them if each holds only 0 and 1; None: neither."""
    if len(left) == 1 or (left and all({v.strip().lower() for v in table.column(i)} <= TRUTH.keys() for i in left)):
        return left
    return None


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


def _question(table: Table, content: Content, sample: int | None, labels: list[int] | None) -> str:
    """Lists the columns with an example of each, and says what to type."""
    missing = [
        *([f"{content.key}=<column with the {content.word}>"] if sample is None else []),
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


def _tell(table: Table, content: Content, sample: int, labels: list[int], header: bool) -> None:
    names = _shown(table, labels[0]) if len(labels) == 1 else f"{len(labels)} columns"
    kind = "label" if len(labels) == 1 else "labels"
    first = ""
    if table.unit == "line" and table.file.suffix.lower() not in (".jsonl", ".ndjson"):
        first = "; the first line is a header" if header else "; there is no header"
    place = _shown(table, sample)
    log.info("%s: the %s is in %s, the %s in %s%s", table.file.name, content.word, place, kind, names, first)


def main_reason(unit: str, bad: Mapping[int, str]) -> str:
    """The most frequent reason why rows of a table cannot be used, for messages; empty if there is none.

    Args:
        unit: what a place counts: `line` or `row`.
        bad: the place of each of these rows, and the reason.
    """
    if not bad:
        return ""
    reason, number = Counter(bad.values()).most_common(1)[0]
    place = min(place for place, each in bad.items() if each == reason)
    where = f"{unit} {place}" if number == 1 else f"{number:,} rows, such as {unit} {place}"
    return f" ({where}: {reason}{'; save the file as UTF-8' if reason == NOT_UTF8 and unit == 'line' else ''})"
