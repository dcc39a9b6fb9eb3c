"""Texts without labels in the rows of a table."""

import logging
from collections.abc import Iterator
from pathlib import Path

from headstart.errors import UsageError, listed
from headstart.inputs.base import Unlabelled
from headstart.inputs.tables import Table, read_table

log = logging.getLogger(__name__)
TEXT_NAMES = ("text", "sentence", "review", "content", "question", "title", "comment", "tweet", "message", "body")
"""Usual names of the column with the text; the first one that a table has counts."""


def rows_of(path: str, column: str | int | None, key: str = "column") -> Iterator[Unlabelled]:
    """The text in each row of a table, in order; rows that cannot be used have a reason.

    Args:
        path: of the table.
        column: with the texts, by name or position from 0; None: a usual name, or the only column.
        key: the setting that names the column, for messages.

    Raises:
        UsageError: the table cannot be read, or the column is not known.
    """
    table, place = _with_column(read_table(Path(path)), column, key)
    found = {row.place: row.values[place] for row in table.rows}
    for number in sorted({*found, *table.bad}):
        name, text = f"{path}:{number}", found.get(number, "")
        if number in table.bad:
            yield Unlabelled(name, reason=table.bad[number])
        else:
            yield Unlabelled(name, text) if text.strip() else Unlabelled(name, reason="empty")


def _with_column(table: Table, column: str | int | None, key: str) -> tuple[Table, int]:
    """The table without its header, and the position of the column with the texts."""
    if not table.rows:
        return table, 0
    if table.names is None and _is_header(table.rows[0].values, column):
        table = table.with_header()
    elif table.names is None:
        log.info("%s: no known header (%s), so the first row is a text, too", table.file, ", ".join(TEXT_NAMES))
    if column is not None:
        return table, table.position(key, column)
    names = [name.lower() for name in table.names or ()]
    if usual := [name for name in TEXT_NAMES if name in names]:
        return table, names.index(usual[0])
    if table.width == 1:
        return table, 0
    has = f"the columns {listed(table.names)}" if table.names else f"{table.width} columns without names"
    raise UsageError(f"{table.file} has {has}: say which one holds the texts, {key}=<name or position from 0>")


def _is_header(values: tuple[str, ...], column: str | int | None) -> bool:
    """Whether the values of the first row are names of columns: the given one, or a usual one."""
    return column in values or any(value.strip().lower() in TEXT_NAMES for value in values)
