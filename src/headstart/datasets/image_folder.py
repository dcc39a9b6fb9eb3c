"""A folder of pictures with one sub-folder per class."""

import hashlib
import logging
import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from headstart.data.module import DataModule, one_of
from headstart.data.samples import Samples
from headstart.datasets.folder_layout import check_classes, find_splits, refuse_file, tell_ignored
from headstart.errors import UsageError, nearest_path
from headstart.files import write_table
from headstart.inputs.folders import files_below, is_junk
from headstart.inputs.images.decode import PICTURE_SUFFIXES
from headstart.inputs.images.files import PictureFiles
from headstart.inputs.images.scan import describe_bad, scan_pictures
from headstart.runs.directory import BAD_FILES

log = logging.getLogger(__name__)


class ImageFolder(DataModule):
    """`root/train/<class>/*.jpg`, and so for `val` and `test`; or `root/<class>/*.jpg`, which is cut into splits.

    Split folders may have other usual names, such as `training_set` or `valid` (`folder_layout.SPLIT_NAMES`).

    Every picture is decoded once before training. Unreadable pictures are listed in the log and left out, or are an
    error. With a `split_file` they are also listed in a table beside it.

    Args:
        root: the folder.
        on_bad: `leave_out` unreadable pictures, or `error`.
        cache: folder for the results of the check; None checks all pictures in each run.
        options: arguments of `DataModule`.
    """

    one_label = True

    def __init__(self, *, root: str, on_bad: str = "leave_out", cache: str | None = None, **options: Any):
        super().__init__(**options)
        one_of("data.on_bad", on_bad, ("leave_out", "error"))
        self.root, self.on_bad = Path(root).expanduser(), on_bad
        self.cache = Path(cache).expanduser() if cache else None
        self.bad: dict[Path, str] = {}

    def dataset(self, split: str) -> Samples | None:
        """The readable pictures of a split, sorted by class and name; None if the split has no folder.

        Raises:
            UsageError: there is no such root, no class folder or no readable picture; or an unreadable picture with
                `on_bad=error`.
        """
        refuse_file(self.root)
        if not self.root.is_dir():
            raise UsageError(
                f"data.root={self.root}: no such folder{nearest_path(self.root) or '.'} "
                "Give a folder with one sub-folder per class, or with folders train, val and test that have them"
            )
        folder = self.split_folder(split)
        if folder is None:
            return None
        labelled, classes = self.labelled(folder)
        return self._readable(folder, labelled, classes)

    def split_folder(self, split: str) -> Path | None:
        """The folder of a split. Without split folders, `root` is the folder of `train`."""
        found = find_splits(self.root)
        if split == "train":
            tell_ignored(self.root, found)
        if not any(found.values()):
            return self.root if split == "train" else None
        if len(found[split]) > 1:
            raise UsageError(f"{' and '.join(map(str, found[split]))} are both the {split} split: keep one")
        return found[split][0] if found[split] else None

    def labelled(self, folder: Path) -> tuple[dict[Path, str], list[str]]:
        """The class of each picture file in the folder of a split, and all class names in order."""
        classes = class_folders(folder)
        if not classes:
            hint = f"put the pictures into {folder / '<class>'}, one folder per class"
            if folder != self.root:
                hint += (
                    f". If {folder.name} is itself a class, put all class folders into {self.root / 'train'}; "
                    "if its pictures have no labels, give it another name"
                )
            raise UsageError(f"{folder} has no class folders: {hint}")
        if folder == self.root:
            check_classes(folder, classes)
        return {path: name for name, place in classes.items() for path in pictures(place)}, list(classes)

    def _readable(self, folder: Path, labelled: dict[Path, str], classes: list[str]) -> Samples:
        """The readable pictures as samples; the others are listed or, with `on_bad=error`, refused."""
        result = scan_pictures(list(labelled), self._scan_file(folder))
        if result.bad:
            description = describe_bad(result, self.root)
            if self.on_bad == "error":
                raise UsageError(f"{description}\nRemove them, or leave them out with data.on_bad=leave_out")
            log.warning("%s\nThey are left out.", description)
            self._list_bad(result.bad)
        kept = [path for path in labelled if path not in result.bad]
        if not kept:
            raise UsageError(f"{folder} has no picture that can be read (of {len(labelled)} files): put some there")
        position = {name: index for index, name in enumerate(classes)}
        return Samples(
            names=[self._name(path) for path in kept],
            targets=[position[labelled[path]] for path in kept],
            classes=classes,
            load=PictureFiles([str(path) for path in kept], grey_bits=result.grey_bits),
            digests=[result.digests[path] for path in kept],
        )

    def _scan_file(self, folder: Path) -> Path | None:
        """One file per split folder, because each scan replaces the list of bad files beside it."""
        if self.cache is None:
            return None
        key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        return self.cache / "scans" / f"{key}.jsonl"

    def _list_bad(self, bad: dict[Path, str]) -> None:
        """Writes the table of unreadable pictures beside the split file. Every process writes the whole file."""
        self.bad |= bad
        if self.split_file:
            rows = [(self._name(path), reason) for path, reason in self.bad.items()]
            write_table(self.split_file.with_name(BAD_FILES), [("name", "reason"), *rows])

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def class_folders(folder: Path) -> dict[str, Path]:
    """Class name -> folder, sorted by name. Hidden and junk folders are no classes.

    Raises:
        UsageError: the names of two folders differ only in how an accented letter is encoded.
    """
    found: dict[str, Path] = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir() and not is_junk(place.name):
            name = unicodedata.normalize("NFC", place.name)  # file systems encode accents differently
            if name in found:
                raise UsageError(f"{folder} has two folders that both read {name!r}: merge them")
            found[name] = place
    return dict(sorted(found.items()))


def pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, in a fixed order. Logs how many other files there are."""
    found: list[Path] = []
    others: Counter[str] = Counter()
    for path in files_below(folder):
        suffix = path.suffix.lower()
        if suffix in PICTURE_SUFFIXES:
            found.append(path)
        else:
            others[suffix or path.name] += 1
    if others:
        log.info("%s: ignored %s", folder, ", ".join(f"{n} x {suffix}" for suffix, n in others.items()))
    return found
