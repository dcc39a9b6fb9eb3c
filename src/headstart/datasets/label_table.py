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
from headstart.datasets.folder_layout import by_split, split_named
from headstart.datasets.table_columns import (
    SPLIT_NAME,
    TRUTH,
    Columns,
    Content,
    FiniteNumbers,
    find_columns,
    finite_number,
)
from headstart.errors import UsageError, listed, nearest, nearest_path
from headstart.inputs.folders import ARCHIVES, is_junk
from headstart.inputs.tables import READABLE, Row, Table, read_table

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
        label_separator: text between the labels of a sample that may have any number of labels; None: one label.
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
                "data.label_separator=';'"
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
        """The file of each split that there is.

        Raises:
            UsageError: there is no table, or two for one split.
        """
        if self.root.is_file():
            self._tell_of_neighbours()
            return {"train": self.root}
        if not self.root.is_dir():
            raise UsageError(
                f"data.root={self.root}: no such file or folder{nearest_path(self.root) or '.'} Give a table "
                f"({', '.join(READABLE)}), or a folder with the tables train, val and test"
            )
        tables = tables_in(self.root)
        found = by_split(tables, lambda path: path.stem)
        for split, files in found.items():
            if len(files) > 1:
                raise UsageError(f"{' and '.join(map(str, files))} are both the {split} split: keep one")
        used = {split: files[0] for split, files in found.items() if files}
        others = [path.name for path in tables if path not in used.values() and not is_unlabelled(path)]
        if not used:
            raise UsageError(self._no_tables(others))
        if others:
            log.warning("%s: not used, because they are no split: %s", self.root, listed(others))
        return used

    def _tell_of_neighbours(self) -> None:
        """Says which splits are beside a given file; only the file is used."""
        found = by_split(tables_in(self.root.parent), lambda path: path.stem)
        own = next((split for split, files in found.items() if self.root in files), None)
        others = [path.name for split, files in found.items() if split != own for path in files]
        if own and others:
            log.info(
                "only %s is used, and cut into splits. To use %s as splits, type data.root=%s",
                *(self.root.name, " and ".join(others), self.root.parent),
            )

    def _no_tables(self, others: list[str]) -> str:
        found = f"data.root={self.root} has no table train, val or test ({', '.join(READABLE)})"
        if others:
            return f"{found}, but {listed(others)}: give one of them, such as data.root={self.root / others[0]}"
        return f"{found}. {self.folders.format(root=self.root)}"

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
            bad = dict(table.bad)
            parts = {
                name: self._samples(table, rows, column, labels, name, bad)
                for name, rows in self._rows_of_splits(table, split, bad).items()
            }
            kept = sum(map(len, parts.values()))
            self._leave_out(table, bad, kept)
            if not kept:
                raise UsageError(f"{table.file} has no row that can be used{self.hint}")
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
        self, table: Table, rows: list[Row], column: int, labels: list[int], split: str, bad: dict[int, str]
    ) -> Samples:
        """The usable rows of a split; the others are added to `bad`."""
        group = None if self.group_by is None else table.position("data.group_by", self.group_by)
        usable: list[Labelled] = []
        for row in rows:
            try:
                names = tuple((self._numbers if self.numbers else self._labels)(table, row, labels))
                usable.append(Labelled(row, names, "" if group is None else _group(row, group)))
            except ValueError as error:
                bad[row.place] = str(error)
        self._check_known(table, usable)
        found = self.loadable(table, usable, column)
        bad |= found.bad
        return self._with_targets(table, found, labels, split)

    def _numbers(self, table: Table, row: Row, columns: list[int]) -> list[str]:
        """The numbers of a row, written so that equal numbers look the same.

        Raises:
            ValueError: a value is no finite number; the message is the reason.
        """
        found = [row.values[column].strip() for column in columns]
        for column, value in zip(columns, found, strict=True):
            if finite_number(value) is None:
                raise ValueError(f"{value!r} in the column {self._class_of(table, column)}, which is no finite number")
        return [repr(float(value)) for value in found]

    def _labels(self, table: Table, row: Row, columns: list[int]) -> list[str]:
        """The names of the classes of a row.

        Raises:
            ValueError: a label cannot be used; the message is the reason.
        """
        if self.several_columns:
            values = {self._class_of(table, column): row.values[column].strip() for column in columns}
            for name, value in values.items():
                if value.lower() not in TRUTH:
                    raise ValueError(f"{value!r} in the label column {name}, which is neither 0 nor 1")
            return [name for name, value in values.items() if TRUTH[value.lower()]]
        label = row.values[columns[0]].strip()
        if self.separator is not None:
            parts = (part.strip() for part in label.split(self.separator))
            return [part for part in parts if part]
        if not label:
            raise ValueError("empty label")
        if self.label_names is not None and label not in self.label_names:
            raise ValueError(f"label {label!r}, which is none of {', '.join(self.label_names)}")
        return [label if self.label_names is None else self.label_names[label]]

    def _class_of(self, table: Table, column: int) -> str:
        return table.names[column] if table.names else str(column)

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

    def _with_targets(self, table: Table, found: Loadable, columns: list[int], split: str) -> Samples:
        named = [self._class_of(table, column) for column in columns]
        if self.numbers:
            classes, targets = named, [[float(number) for number in each.labels] for each in found.rows]
        else:
            classes, targets = self._classes_and_targets(named if self.several_columns else [], found.rows)
        if self._classes is None and split == "train":
            self._classes = ("train" if self.known_classes is None else "the model", self.known_classes or classes)
        groups = None if self.group_by is None else [each.group for each in found.rows]
        return Samples(
            names=found.names, targets=targets, classes=classes, load=found.load, digests=found.digests,
            copies_together=self.copies_together, groups=groups, numbers=self.numbers,
        )  # fmt: skip

    def _classes_and_targets(self, columns: list[str], rows: list[Labelled]) -> tuple[list[str], list[Any]]:
        classes = sorted({*columns, *(name for each in rows for name in each.labels)})
        if self.several_columns or self.separator is not None:
            return classes, [[int(name in each.labels) for name in classes] for each in rows]
        position = {name: index for index, name in enumerate(classes)}
        return classes, [position[name] for (name,) in (each.labels for each in rows)]

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


def tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, sorted by name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in READABLE and path.is_file() and not is_junk(path.name)
    ]


def is_unlabelled(file: Path) -> bool:
    """Whether the name of a file says that its samples have no labels."""
    return file.name.lower().startswith(("unlabelled", "unlabeled", "unsup"))


def _as_tuple(columns: int | str | Sequence[int | str] | None) -> tuple[int | str, ...] | None:
    if columns is None:
        return None
    given = (columns,) if isinstance(columns, (int, str)) else tuple(columns)
    if not given:
        raise UsageError("data.label_column=[]: give a column, or null to find it")
    return given
