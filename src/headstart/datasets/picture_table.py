"""Files of pictures and their labels in a table."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headstart.data.samples import Samples
from headstart.datasets.folder_layout import tell_outside
from headstart.datasets.label_table import Labelled, LabelTable, Loadable
from headstart.datasets.table_columns import Content
from headstart.errors import UsageError
from headstart.inputs.images.decode import PICTURE_SUFFIXES
from headstart.inputs.images.files import PictureFiles
from headstart.inputs.images.scan import results_file, scan_pictures
from headstart.inputs.tables import Table

log = logging.getLogger(__name__)

IMAGE_NAMES = (
    "image", "path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "image_file", "image_name",
    "img", "img_path", "picture", "photo", "image_id", "id",
)  # fmt: skip
"""Usual names of the column with the file names; the first one that a table has counts."""
ENDINGS = [
    spelt
    for ending in sorted(PICTURE_SUFFIXES, key=lambda ending: (ending not in (".jpg", ".png"), ending))
    for spelt in (ending, ending.upper())
]
"""Endings that are tried for file names without one, the most frequent first."""


def is_picture_name(value: str) -> bool:
    """Whether a value ends as the name of a picture does."""
    return Path(value.strip()).suffix.lower() in PICTURE_SUFFIXES


class PictureTable(LabelTable):
    """A `LabelTable` with the name of one picture file per row, relative to `images` or else to the table.

    Every picture is decoded once before training. A sample is named as in the table. A picture that is in several rows
    with the same labels counts once; if the labels differ, all its rows are left out.

    Args:
        image_column: name of the column with the file names, or its position from 0; None: found (`find_columns`).
        images: the folder that file names are relative to; None: the folder of their table. File names may lack their
            ending.
        cache: folder for the results of the check; None checks all pictures in each run.
        options: arguments of `LabelTable`.
    """

    content = Content("data.image_column", "file name", IMAGE_NAMES, is_picture_name)
    hint = (
        ": if its pictures are elsewhere, give data.images=<the folder that file names are relative to>; if the file "
        "names are in another column, data.image_column=<the column>"
    )
    folders = "For one folder of pictures per class, type data=image_folder data.root={root}"

    def __init__(
        self,
        *,
        image_column: int | str | None = None,
        images: str | None = None,
        cache: str | None = None,
        **options: Any,
    ):
        super().__init__(column=image_column, **options)
        self.images = Path(images).expanduser() if images else None
        self.cache = Path(cache).expanduser() if cache else None
        if self.images and not self.images.is_dir():
            raise UsageError(f"data.images={images}: no such folder. Give the folder that file names are relative to")
        self._named: set[str] = set()
        self._files: list[Path] = []

    def _read(self) -> dict[str, Samples]:
        found = super()._read()
        tell_outside(self._files, self.root, *[self.images] * (self.images is not None))
        return found

    def loadable(self, table: Table, rows: list[Labelled], column: int) -> Loadable:
        """As in `LabelTable`: the rows whose picture can be decoded."""
        folder = self.images or table.file.parent
        names = {each.row.place: each.row.values[column].strip() for each in rows}
        found = {place: _find(folder, name) for place, name in names.items()}
        files = {place: file for place, file in found.items() if file is not None}
        self._files += files.values()
        bad = {place: f"no file {folder / names[place]}" for place in found.keys() - files.keys()}
        kept = [each for each in rows if each.row.place in files]
        kept, contradictory = _without_copies(table, kept, files, tuple if self.numbers else frozenset)
        result = scan_pictures([files[each.row.place] for each in kept], results_file(self.cache, table.file))
        places = [each.row.place for each in kept if files[each.row.place] in result.bad]
        bad |= contradictory | {place: f"{names[place]}: {result.bad[files[place]]}" for place in places}
        kept = [each for each in kept if each.row.place not in bad]
        paths = [files[each.row.place] for each in kept]
        unique = [self._unique(names[each.row.place], table, each.row.place) for each in kept]
        load = PictureFiles([str(path) for path in paths], grey_bits=result.grey_bits)
        return Loadable(kept, unique, load, [result.digests[path] for path in paths], bad)

    def _unique(self, name: str, table: Table, place: int) -> str:
        """The name, with its row if another split has it too, which `warn_of_leaks` reports."""
        if name in self._named:
            name = f"{name} ({self._name(table, place)})"
        self._named.add(name)
        return name


def _find(folder: Path, name: str) -> Path | None:
    """The file with this name, or with this name and the ending of a picture; None: there is none."""
    tried = [name, name.replace("\\", "/")]
    if not is_picture_name(name):
        tried += [f"{tried[1]}{ending}" for ending in ENDINGS]
    try:
        return next((path for each in tried if each and (path := folder / each).is_file()), None)
    except (OSError, ValueError):  # no name of a file, such as a long text
        return None


def _without_copies(
    table: Table, rows: list[Labelled], files: dict[int, Path], compared: type
) -> tuple[list[Labelled], dict[int, str]]:
    """The first row of each picture, and the rows of pictures whose labels differ, with the reason.

    Labels are `compared` as sets, numbers as tuples.
    """
    by_file: dict[Path, list[Labelled]] = defaultdict(list)
    for each in rows:
        by_file[files[each.row.place]].append(each)
    kept, bad, copies = [], {}, 0
    for same in by_file.values():
        if len({compared(each.labels) for each in same}) == 1:
            kept.append(same[0])
            copies += len(same) - 1
        else:
            bad |= {each.row.place: _contradiction(table, same) for each in same}
    if copies:
        log.info("%s: %d rows name a picture that an earlier row has with the same labels", table.file.name, copies)
    return kept, bad


def _contradiction(table: Table, rows: Iterable[Labelled]) -> str:
    shown = ", ".join(f"{'|'.join(each.labels) or 'none'} in {table.unit} {each.row.place}" for each in rows)
    return f"the labels of its picture differ: {shown}"
