"""Texts and labels in a table: a CSV, TSV, JSON lines or Parquet file, or one file per split."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from headstart.data.module import DataModule, one_of
from headstart.data.samples import Samples
from headstart.datasets import bad_samples
from headstart.datasets.folder_layout import by_split
from headstart.datasets.table_columns import Columns, find_columns
from headstart.errors import UsageError, listed, nearest_path
from headstart.inputs.folders import ARCHIVES, is_junk
from headstart.inputs.tables import READABLE, Row, Table, read_table
from headstart.inputs.text.files import Texts, digest

log = logging.getLogger(__name__)

TRUTH = {"0": 0, "1": 1, "false": 0, "true": 1, "0.0": 0, "1.0": 1}
"""Values of a column of 0 and 1."""


class TextTable(DataModule):
    """A table with one text per row, which is cut into splits; or a folder with `train.csv`, `val.csv`, `test.csv`.

    Files may have other usual names, such as `training_set.tsv` or, beside `train`, `dev.jsonl`
    (`folder_layout.SPLIT_NAMES`). A file `unlabelled...` is not used.

    A sample is named by its file and line, such as `train.tsv:12`. Rows that cannot be used are listed in the log and
    left out, or are an error. With a `split_file` they are also listed in a table beside it.

    Args:
        root: the file or folder.
        text_column: name of the column with the text, or its position from 0; None: found (`find_columns`).
        label_column: the same for the label. Several columns of 0 and 1: samples may have any number of labels.
        label_separator: text between the labels of a sample that may have any number of labels; None: one label.
        header: whether the first row of a CSV or TSV file holds the names of the columns; None: found (`is_header`).
        on_bad: `leave_out` rows that cannot be used, or `error`.
        options: arguments of `DataModule`.

    Attributes:
        label_names: label in the file -> name of its class; None: they are the same.
        bad: name -> reason, for each row that cannot be used.
    """

    label_names: ClassVar[Mapping[str, str] | None] = None

    def __init__(
        self,
        *,
        root: str,
        text_column: int | str | None = None,
        label_column: int | str | Sequence[int | str] | None = None,
        label_separator: str | None = None,
        header: bool | None = None,
        on_bad: str = "leave_out",
        **options: Any,
    ):
        super().__init__(**options)
        one_of("data.on_bad", on_bad, bad_samples.CHOICES)
        if header is not None and not isinstance(header, bool):
            raise UsageError(f"data.header={header}: choose one of true, false, null")
        self.root, self.on_bad, self.header = Path(root).expanduser(), on_bad, header
        self.text_column, self.separator = text_column, label_separator
        self.several_columns = label_column is not None and not isinstance(label_column, (int, str))
        self.label_columns = _as_tuple(label_column)
        if label_separator is not None and (not label_separator or self.several_columns):
            raise UsageError(
                f"data.label_separator={label_separator!r}: give the text between the labels of one column, such as "
                "data.label_separator=';'"
            )
        self._files: dict[str, Path] | None = None
        self.columns: Columns | None = None
        self.bad: dict[str, str] = {}

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
        return f"{found}. For one folder of .txt files per class, type data=text_folder data.root={self.root}"

    def dataset(self, split: str) -> Samples | None:
        """The usable rows of a split, in their order; None if the split has no file.

        Raises:
            UsageError: there is no such file; it has no usable row, or its columns are not known; or a row cannot be
                used with `on_bad=error`.
        """
        if self.root.suffix.lower() in ARCHIVES:
            raise UsageError(f"data.root={self.root} is an archive: unpack it, and give the file or folder inside")
        if self._files is None:
            self._files = self.files()
        if split not in self._files:
            return None
        table = read_table(self._files[split])
        if self.columns is None:  # the other files have the same columns as the first one
            self.columns = find_columns(table, self.text_column, self.label_columns, self.header, self.known_classes)
        return self._samples(table)

    def _samples(self, table: Table) -> Samples:
        try:
            table, text, labels = self.columns.find(table)
        except UsageError as error:
            if table.file == self.root:
                raise
            hint = f"if its texts have no labels, rename it to unlabelled_{table.file.name}"
            raise UsageError(f"{error}. All files need these columns, and a header if one has it; {hint}") from error
        bad = dict(table.bad)
        kept: list[Row] = []
        found: list[list[str]] = []
        for row in table.rows:
            try:
                names = self._labels(table, row, labels)
                if not row.values[text].strip():
                    raise ValueError("empty text")
            except ValueError as error:
                bad[row.place] = str(error)
            else:
                kept.append(row)
                found.append(names)
        self._leave_out(table, bad, len(kept))
        if not kept:
            raise UsageError(f"{table.file} has no row that can be used")
        return self._with_targets(table, kept, found, text, labels)

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

    def _with_targets(
        self, table: Table, rows: list[Row], labels: list[list[str]], text: int, columns: list[int]
    ) -> Samples:
        named = [self._class_of(table, column) for column in columns] if self.several_columns else []
        classes = sorted({*named, *(name for names in labels for name in names)})
        position = {name: index for index, name in enumerate(classes)}
        if self.several_columns or self.separator is not None:
            targets = [[int(name in names) for name in classes] for names in labels]
        else:
            targets = [position[name] for (name,) in labels]
        texts = [row.values[text] for row in rows]
        return Samples(
            names=[self._name(table, row.place) for row in rows],
            targets=targets,
            classes=classes,
            load=Texts(texts),
            digests=[digest(each) for each in texts],
            copies_together=True,
        )

    def _leave_out(self, table: Table, bad: dict[int, str], kept: int) -> None:
        if not bad:
            return
        named = {self._name(table, place): reason for place, reason in sorted(bad.items())}
        bad_samples.refuse_or_warn(bad_samples.describe(named, len(bad) + kept, "rows"), self.on_bad)
        self.bad |= named
        bad_samples.write_list(self.split_file, self.bad)

    def _name(self, table: Table, place: int) -> str:
        return f"{table.file.name}:{place}"


def tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, sorted by name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in READABLE and path.is_file() and not is_junk(path.name)
    ]


def is_unlabelled(file: Path) -> bool:
    """Whether the name of a file says that its texts have no labels."""
    return file.name.lower().startswith(("unlabelled", "unlabeled", "unsup"))


def _as_tuple(columns: int | str | Sequence[int | str] | None) -> tuple[int | str, ...] | None:
    if columns is None:
        return None
    given = (columns,) if isinstance(columns, (int, str)) else tuple(columns)
    if not given:
        raise UsageError("data.label_column=[]: give a column, or null to find it")
    return given
