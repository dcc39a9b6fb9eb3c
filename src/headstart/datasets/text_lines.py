"""Texts without labels: the lines of a file, the rows of a table, or the files of a folder."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from headstart.data.module import DataModule, one_of
from headstart.data.samples import Samples
from headstart.datasets import bad_samples
from headstart.datasets.folder_layout import tell_outside
from headstart.errors import UsageError, nearest_path
from headstart.files import TABLE_SUFFIXES
from headstart.inputs.base import Unlabelled, UnreadableInput
from headstart.inputs.folders import ARCHIVES, files_below
from headstart.inputs.text.files import Texts, decoded, digest, lines_of, usable
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.inputs.text.tables import rows_of


class TextLines(DataModule):
    """Each line of a text file, each row of a table, or each `.txt` file in a folder and its sub-folders.

    They have no labels, so only a task that needs none can be trained on them. The splits are cut at random; texts with
    the same content stay together. Texts that cannot be used, such as empty lines, are left out, or are an error.

    Args:
        root: the file or the folder, in UTF-8.
        text_column: of a table, name of the column with the text, or its position from 0; None: found.
        on_bad: `leave_out` texts that cannot be used, or `error`.
        options: arguments of `DataModule`.

    Attributes:
        bad: name -> reason, for each text that cannot be used.
    """

    def __init__(self, *, root: str, text_column: int | str | None = None, on_bad: str = "leave_out", **options: Any):
        super().__init__(**options)
        one_of("data.on_bad", on_bad, bad_samples.CHOICES)
        self.root, self.text_column, self.on_bad = Path(root).expanduser(), text_column, on_bad
        self.bad: dict[str, str] = {}

    def dataset(self, split: str) -> Samples | None:
        """All usable texts as `train`.

        Raises:
            UsageError: there is no such file or folder, or no text in it; or a text cannot be used with `on_bad=error`.
        """
        if split != "train":
            return None
        if not self.root.exists():
            raise UsageError(f"data.root={self.root}: no such file or folder{nearest_path(self.root) or '.'}")
        if self.root.suffix.lower() in ARCHIVES:
            raise UsageError(f"data.root={self.root} is an archive: unpack it, and give the file or folder inside")
        kept, self.bad = _sorted_out(self._found())
        if self.bad:
            described = bad_samples.describe(self.bad, len(self.bad) + len(kept), "texts")
            bad_samples.refuse_or_warn(described, self.on_bad)
            bad_samples.write_list(self.split_file, self.bad)
        if not kept:
            raise UsageError(
                f"data.root={self.root} has no text that can be used: give a file with one text per line, a table "
                f"({', '.join(TABLE_SUFFIXES)}), or a folder of .txt files"
            )
        if self.root.is_dir():
            tell_outside((self.root / name for name in kept), self.root)
        texts = list(kept.values())
        return Samples(
            names=list(kept), targets=[[] for _ in texts], classes=[], load=Texts(texts),
            digests=list(map(digest, texts)), copies_together=True,
        )  # fmt: skip

    def _found(self) -> Iterator[Unlabelled]:
        """Every text, named by its line or row, or by its path in the folder."""
        if self.root.is_dir():
            yield from _files(self.root)
            return
        is_table = self.root.suffix.lower() in TABLE_SUFFIXES
        source = str(self.root)
        found = rows_of(source, self.text_column, "data.text_column") if is_table else lines_of(source)
        for each in found:
            yield Unlabelled(f"{self.root.name}:{each.name.rpartition(':')[2]}", each.raw, each.reason)


def _files(folder: Path) -> Iterator[Unlabelled]:
    for path in files_below(folder):
        if path.suffix.lower() in TextPreprocess.suffixes:
            name = path.relative_to(folder).as_posix()
            try:
                yield Unlabelled(name, usable(decoded(str(path))))
            except UnreadableInput as error:
                yield Unlabelled(name, reason=error.reason)


def _sorted_out(found: Iterable[Unlabelled]) -> tuple[dict[str, str], dict[str, str]]:
    """Name -> text of the usable ones, and name -> reason of the others."""
    kept, bad = {}, {}
    for each in found:
        if each.reason is None:
            kept[each.name] = each.raw
        else:
            bad[each.name] = each.reason
    return kept, bad
