"""Reads the labels of a row of a table: one class, several classes, or numbers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headstart.datasets.table_columns import TRUTH, finite_number
from headstart.inputs.tables import ListText, Row


@dataclass(frozen=True)
class RowLabels:
    """How the labels stand in a row.

    Attributes:
        columns: position -> name, of each column with labels.
        several_columns: whether these are columns of 0 and 1, one for each class.
        separator: text between the labels in one column, which may also hold lists of labels; None: one label.
        numbers: whether the labels are numbers instead of classes.
        names: label in the file -> name of its class; None: they are the same.
    """

    columns: Mapping[int, str]
    several_columns: bool = False
    separator: str | None = None
    numbers: bool = False
    names: Mapping[str, str] | None = None

    def read(self, row: Row) -> tuple[str, ...]:
        """The names of the classes of a row, or its numbers, written so that equal numbers look the same.

        Raises:
            ValueError: a label cannot be used; the message is the reason.
        """
        if self.numbers:
            return tuple(self._number(row.values[column].strip(), name) for column, name in self.columns.items())
        if self.several_columns:
            return tuple(name for column, name in self.columns.items() if self._truth(row.values[column].strip(), name))
        (column,) = self.columns
        value = row.values[column]
        if self.separator is not None:
            parts = _in_list(value) if isinstance(value, ListText) else value.split(self.separator)
            return tuple(part.strip() for part in parts if part.strip())
        if isinstance(value, ListText):
            raise ValueError(f"label {value}, which is a list")
        label = value.strip()
        if not label:
            raise ValueError("empty label")
        if self.names is not None and label not in self.names:
            raise ValueError(f"label {label!r}, which is none of {', '.join(self.names)}")
        return (label if self.names is None else self.names[label],)

    @staticmethod
    def _number(value: str, name: str) -> str:
        if finite_number(value) is None:
            raise ValueError(f"{value!r} in the column {name}, which is no finite number")
        return repr(float(value))

    @staticmethod
    def _truth(value: str, name: str) -> bool:
        if value.lower() not in TRUTH:
            raise ValueError(f"{value!r} in the label column {name}, which is neither 0 nor 1")
        return TRUTH[value.lower()]

    def classes_and_targets(self, rows: Sequence[Iterable[str]]) -> tuple[list[str], list]:
        """The classes (or names of the numbers) and the target of each row.

        Args:
            rows: what `read` returned.

        Returns:
            Classes sorted by name, and per row the index of its class, a list of 0 and 1 per class, or its numbers.
        """
        named = list(self.columns.values())
        if self.numbers:
            return named, [[float(number) for number in labels] for labels in rows]
        classes = sorted({*(named if self.several_columns else ()), *(name for labels in rows for name in labels)})
        if self.several_columns or self.separator is not None:
            return classes, [[int(name in labels) for name in classes] for labels in rows]
        position = {name: index for index, name in enumerate(classes)}
        return classes, [position[name] for (name,) in rows]


def _in_list(value: ListText) -> list[str]:
    """The labels in a list of texts or numbers.

    Raises:
        ValueError: it holds another kind of value.
    """
    labels = json.loads(value, parse_int=str, parse_float=str)
    if not all(isinstance(label, str) for label in labels):
        raise ValueError("a list of labels that holds more than texts and numbers")
    return labels
