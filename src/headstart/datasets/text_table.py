"""Texts and labels in a table."""

from typing import Any

from headstart.datasets.label_table import Labelled, LabelTable, Loadable
from headstart.datasets.table_columns import Content
from headstart.inputs.tables import Table
from headstart.inputs.text.files import Texts, digest
from headstart.inputs.text.tables import TEXT_NAMES


class TextTable(LabelTable):
    """A `LabelTable` with one text per row. A sample is named by its file and line, such as `train.tsv:12`.

    Args:
        text_column: name of the column with the text, or its position from 0; None: found (`find_columns`).
        options: arguments of `LabelTable`.
    """

    content = Content("data.text_column", "text", TEXT_NAMES)
    folders = "For one folder of .txt files per class, type data=text_folder data.root={root}"
    copies_together = True

    def __init__(self, *, text_column: int | str | None = None, **options: Any):
        super().__init__(column=text_column, **options)

    def loadable(self, table: Table, rows: list[Labelled], column: int) -> Loadable:
        """As in `LabelTable`: the rows whose text is not empty."""
        bad = {each.row.place: "empty text" for each in rows if not each.row.values[column].strip()}
        kept = [each for each in rows if each.row.place not in bad]
        texts = [each.row.values[column] for each in kept]
        names = [self._name(table, each.row.place) for each in kept]
        return Loadable(kept, names, Texts(texts), [digest(text) for text in texts], bad)
