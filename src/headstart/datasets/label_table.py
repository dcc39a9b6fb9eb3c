"""Tables with labels: a CSV, TSV, JSON lines or Parquet file, or one file per split; for any kind of sample."""

import logging
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from headstart.data.module import SPLITS, DataModule, one_of
from headstart.data.samples import Loader, Samples
from headstart.datasets import bad_samples
from headstart.datasets.folder_layout import split_named
from headstart.datasets.row_labels import RowLabels
from headstart.datasets.table_columns import (
    SPLIT_NAME,
    Columns,
    Content,
    FiniteNumbers,
    find_columns,
    main_reason,
)
from headstart.datasets.table_files import files_of_splits
from headstart.errors import UsageError, listed, nearest
from headstart.inputs.folders import ARCHIVES
from headstart.inputs.tables import ListText, Row, Table, read_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """A row that has usable labels: their names or the numbers, and the group of the row (empty: no groups)."""

    row: Row
    labels: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class Loadable:
    """The rows of a table whose samples can be loaded.

    Attributes:
        rows: these rows.
        names: of their samples.
        load: position in `rows` -> raw sample.
        digests: a hash of the content of each sample.
        bad: place of each other row -> reason.
    """

    rows: list[Labelled]
    names: list[str]
    load: Loader
    digests: list[str]
    bad: Mapping[int, str]


class LabelTable(DataModule):
    """A table with one sample per row, which is cut into splits; or a folder with `train.csv`, `val.csv`, `test.csv`.

    Files may have other usual names, such as `training_set.tsv` or, beside `train`, `dev.jsonl`
    (`folder_layout.SPLIT_NAMES`). A file `unlabelled...` is not used. A single table may have a column with the split
    of each row.

    Rows that cannot be used are listed in the log by file and line, and left out, or are an error. With a `split_file`
    they are also listed in a table beside it.

    Args:
        root: the file or folder.
        column: name of the column with the sample, or its position from 0; None: found (`find_columns`).
        label_column: the same for the label. Several columns of 0 and 1: samples may have any number of labels. With
            `numbers`, one column or several that hold numbers.
        label_separator: text between the labels of a sample that may have any number of labels; None: one label. In
            JSON lines and Parquet, lists of labels are read, too.
        split_column: the column with `train`, `val` or `test`; None: a column `split`, if most of its values are these.
        group_by: a column; all rows with the same value in it, such as a patient, stay in one split. None: no groups.
        numbers: whether the labels are numbers instead of classes.
        header: whether the first row of a CSV or TSV file holds the names of the columns; None: found (`find_columns`).
        on_bad: `leave_out` rows that cannot be used, or `error`.
        options: arguments of `DataModule`.

    Attributes:
        content: the column of the samples: its setting and its usual names.
        folders: what to type if the samples are in folders, for messages.
        hint: what to do if no row can be used, for messages.
        copies_together: as in `Samples`.
        label_names: label in the file -> name of its class; None: they are the same.
        bad: name -> reason, for each row that cannot be used.
    """

    content: ClassVar[Content]
    folders: ClassVar[str]
    hint: ClassVar[str] = ""
    copies_together: ClassVar[bool] = False
    label_names: ClassVar[Mapping[str, str] | None] = None

    def __init__(
        self,
        *,
        root: str,
        column: int | str | None = None,
        label_column: int | str | Sequence[int | str] | None = None,
        label_separator: str | None = None,
        split_column: int | str | None = None,
        group_by: int | str | None = None,
        numbers: bool = False,
        header: bool | None = None,
        on_bad: str = "leave_out",
        **options: Any,
    ):
        super().__init__(**options)
        one_of("data.on_bad", on_bad, bad_samples.CHOICES)
        if header is not None and not isinstance(header, bool):
            raise UsageError(f"data.header={header}: choose one of true, false, null")
        self.root, self.on_bad, self.header = Path(root).expanduser(), on_bad, header
        self.column, self.separator = column, label_separator
        self.split_column, self.group_by, self.numbers = split_column, group_by, numbers
        self.label_columns = _as_tuple(label_column)
        self.several_columns = label_column is not None and not isinstance(label_column, (int, str))
        if label_separator is not None and (not label_separator or self.several_columns):
            raise UsageError(
                f"data.label_separator={label_separator!r}: give the text between the labels of one column, such as "
                "'data.label_separator=\";\"'"
            )
        if label_separator is not None and numbers:
            raise UsageError("data.label_separator is for labels, and data.numbers=true: leave it out")
        self.columns: Columns | None = None
        self.bad: dict[str, str] = {}
        self._parts: dict[str, Samples] | None = None
        self._classes: tuple[str, list[str]] | None = None  # who defines them, and their names

    @abstractmethod
    def loadable(self, table: Table, rows: list[Labelled], column: int) -> Loadable:
        """The samples of the rows that have usable labels.

        Args:
            table: with these rows.
            rows: in order.
            column: position of the column with the samples.
        """

    def files(self) -> dict[str, Path]:
        """The file of each split that there is; `files_of_splits` raises errors."""
        return files_of_splits(self.root, self.folders)

    def dataset(self, split: str) -> Samples | None:
        """The usable rows of a split, in their order; None if there is none.

        Raises:
            UsageError: there is no such file; it has no usable row, or its columns are not known; or a row cannot be
                used with `on_bad=error`.
        """
        if self.root.suffix.lower() in ARCHIVES:
            raise UsageError(f"data.root={self.root} is an archive: unpack it, and give the file or folder inside")
        if self._parts is None:
            self._parts = self._read()
        return self._parts.get(split)

    def _read(self) -> dict[str, Samples]:
        """The samples of each split, `train` first: it defines the classes of a new model."""
        found: dict[str, Samples] = {}
        for split, file in self.files().items():
            table = read_table(file)
            if self.columns is None:  # the other files have the same columns as the first one
                self.columns = self._find_columns(table)
            table, column, labels = self._with_columns(table)
            self._refuse_lists(table, labels)
            reader = RowLabels(
                {position: table.names[position] if table.names else str(position) for position in labels},
                *(self.several_columns, self.separator, self.numbers, self.label_names),
            )
            bad = dict(table.bad)
            parts = {
                name: self._samples(table, rows, column, reader, name, bad)
                for name, rows in self._rows_of_splits(table, split, bad).items()
            }
            kept = sum(map(len, parts.values()))
            self._leave_out(table, bad, kept)
            if not kept:
                raise UsageError(f"{table.file} has no row that can be used{main_reason(table.unit, bad)}{self.hint}")
            found |= {name: samples for name, samples in parts.items() if len(samples)}
        return found

    def _find_columns(self, table: Table) -> Columns:
        others = {"data.split_column": self.split_column, "data.group_by": self.group_by}
        given = {key: column for key, column in others.items() if column is not None}
        known = FiniteNumbers() if self.numbers else self.known_classes
        columns = find_columns(table, self.content, self.column, self.label_columns, self.header, known, given)
        self.several_columns |= len(columns.labels) > 1
        if len(set(columns.labels)) < len(columns.labels):
            raise UsageError(f"data.label_column={list(columns.labels)} names a column twice: give each column once")
        return columns

    def _with_columns(self, table: Table) -> tuple[Table, int, list[int]]:
        try:
            return self.columns.find(table, self.content.key)
        except UsageError as error:
            if table.file == self.root:
                raise
            hint = f"if its samples have no labels, rename it to unlabelled_{table.file.name}"
            raise UsageError(f"{error}. All files need these columns, and a header if one has it; {hint}") from error

    def _refuse_lists(self, table: Table, labels: list[int]) -> None:
        """Refuses lists in most rows of the column with the label, where one label is expected."""
        if self.numbers or self.several_columns or self.separator is not None:
            return
        lists = [row for row in table.rows if isinstance(row.values[labels[0]], ListText)]
        if 2 * len(lists) > len(table.rows):
            raise UsageError(
                f"{table.file}, {table.unit} {lists[0].place}, column {table.names[labels[0]]!r}: the labels are "
                "lists; type task=multilabel 'data.label_separator=\";\"'"
            )

    def _rows_of_splits(self, table: Table, split: str, bad: dict[int, str]) -> dict[str, list[Row]]:
        """The rows of each split; without a split column, all rows belong to the split of their file.

        Rows of no split are added to `bad`.
        """
        column = self._split_column(table)
        if column is None:
            return {split: table.rows}
        found: dict[str, list[Row]] = {name: [] for name in SPLITS}
        for row in table.rows:
            name = split_named(row.values[column])
            if name is None:
                bad[row.place] = f"split {row.values[column]!r}, which is none of {', '.join(SPLITS)}"
            else:
                found[name].append(row)
        return {name: rows for name, rows in found.items() if rows}

    def _split_column(self, table: Table) -> int | None:
        if self.split_column is not None:
            if table.file != self.root:
                raise UsageError(
                    f"data.split_column={self.split_column}: {self.root} already has one file per split; leave it out"
                )
            return table.position("data.split_column", self.split_column)
        names = [name.lower() for name in table.names or ()]
        if table.file != self.root or names.count(SPLIT_NAME) != 1:
            return None
        column = names.index(SPLIT_NAME)
        if table.names[column] in (self.columns.sample, *self.columns.labels):
            return None
        values = table.column(column)
        if 2 * sum(split_named(value) is not None for value in values) <= len(values):
            log.info("%s: column %r does not name splits, and is not used", table.file.name, table.names[column])
            return None
        log.info("%s: the splits are in column %r", table.file.name, table.names[column])
        return column

    def _samples(
        self, table: Table, rows: list[Row], column: int, labels: RowLabels, split: str, bad: dict[int, str]
    ) -> Samples:
        """The usable rows of a split; the others are added to `bad`."""
        group = None if self.group_by is None else table.position("data.group_by", self.group_by)
        usable: list[Labelled] = []
        for row in rows:
            try:
                usable.append(Labelled(row, labels.read(row), "" if group is None else _group(row, group)))
            except ValueError as error:
                bad[row.place] = str(error)
        self._check_known(table, usable)
        found = self.loadable(table, usable, column)
        bad |= found.bad
        return self._with_targets(found, labels, split)

    def _check_known(self, table: Table, rows: list[Labelled]) -> None:
        """Refuses labels that neither the model nor the training samples have, by their rows."""
        if self.numbers or (self.known_classes is None and self._classes is None):
            return
        owner, known = self._classes or ("the model", self.known_classes)
        unknown: dict[str, list[int]] = defaultdict(list)
        for each in rows:
            for name in each.labels:
                if name not in known:
                    unknown[name].append(each.row.place)
        if unknown:
            name, places = next(iter(unknown.items()))
            more = f" and {len(unknown) - 1} more such labels" if len(unknown) > 1 else ""
            raise UsageError(
                f"{self._name(table, places[0])}: the label {name!r} ({len(places)} rows){more}, which {owner} does "
                f"not have{nearest(name, known) or '.'} The labels of {owner} are {listed(known)}. Correct or remove "
                "these rows"
            )

    def _with_targets(self, found: Loadable, labels: RowLabels, split: str) -> Samples:
        classes, targets = labels.classes_and_targets([each.labels for each in found.rows])
        if self._classes is None and split == "train":
            self._classes = ("train" if self.known_classes is None else "the model", self.known_classes or classes)
        groups = None if self.group_by is None else [each.group for each in found.rows]
        return Samples(
            names=found.names, targets=targets, classes=classes, load=found.load, digests=found.digests,
            copies_together=self.copies_together, groups=groups, numbers=self.numbers,
        )  # fmt: skip

    def _leave_out(self, table: Table, bad: dict[int, str], kept: int) -> None:
        if not bad:
            return
        named = {self._name(table, place): reason for place, reason in sorted(bad.items())}
        bad_samples.refuse_or_warn(bad_samples.describe(named, len(bad) + kept, "rows"), self.on_bad)
        self.bad |= named
        bad_samples.write_list(self.split_file, self.bad)

    def _name(self, table: Table, place: int) -> str:
        """A row in messages, such as `train.tsv:12`."""
        return f"{table.file.name}:{place}"


def _group(row: Row, column: int) -> str:
    """The group of a row.

    Raises:
        ValueError: it is empty.
    """
    if not (found := row.values[column].strip()):
        raise ValueError("empty group")
    return found


def _as_tuple(columns: int | str | Sequence[int | str] | None) -> tuple[int | str, ...] | None:
    if columns is None:
        return None
    given = (columns,) if isinstance(columns, (int, str)) else tuple(columns)
    if not given:
        raise UsageError("data.label_column=[]: give a column, or null to find it")
    return given
