"""Data sets of files in one folder per class, for any kind of file."""

import logging
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from headstart.data.module import DataModule, one_of
from headstart.data.samples import Loader, Samples
from headstart.datasets import bad_samples
from headstart.datasets.folder_layout import check_classes, find_splits, refuse_file, tell_ignored, tell_outside
from headstart.errors import UsageError, counted, nearest_path
from headstart.inputs.folders import files_below, is_junk

log = logging.getLogger(__name__)
KINDS_LISTED = 10


class ClassFolders(DataModule):
    """`root/train/<class>/<file>`, and so for `val` and `test`; or `root/<class>/<file>`, which is cut into splits.

    Split folders may have other usual names, such as `training_set` or `valid` (`folder_layout.SPLIT_NAMES`).

    Files that cannot be read are listed in the log and left out, or are an error. With a `split_file` they are also
    listed in a table beside it.

    Args:
        root: the folder.
        on_bad: `leave_out` unreadable files, or `error`.
        options: arguments of `DataModule`.

    Attributes:
        things: the word for the files, such as `pictures`.
        suffixes: endings of the files, lower case with the dot.
        bad: name -> reason, for each unreadable file that was found.
    """

    one_label = True
    things: ClassVar[str]
    suffixes: ClassVar[Collection[str]]

    def __init__(self, *, root: str, on_bad: str = "leave_out", **options: Any):
        super().__init__(**options)
        one_of("data.on_bad", on_bad, bad_samples.CHOICES)
        self.root, self.on_bad = Path(root).expanduser(), on_bad
        self.bad: dict[str, str] = {}

    @abstractmethod
    def readable(self, folder: Path, labelled: dict[Path, str], classes: list[str]) -> Samples:
        """The readable files as samples. The others are listed (`leave_out`) or refused.

        Args:
            folder: of the split.
            labelled: the class of each file.
            classes: class names in order.

        Raises:
            UsageError: no file can be read; or one cannot with `on_bad=error`.
        """

    def dataset(self, split: str) -> Samples | None:
        """The readable files of a split, sorted by class and name; None if the split has no folder.

        Raises:
            UsageError: there is no such root, no class folder or no readable file; or an unreadable file with
                `on_bad=error`.
        """
        refuse_file(self.root, self.things)
        if not self.root.is_dir():
            raise UsageError(
                f"data.root={self.root}: no such folder{nearest_path(self.root) or '.'} "
                "Give a folder with one sub-folder per class, or with folders train, val and test that have them"
            )
        folder = self.split_folder(split)
        if folder is None:
            return None
        labelled, classes = self.labelled(folder)
        tell_outside(labelled, self.root)
        return self.readable(folder, labelled, classes)

    def split_folder(self, split: str) -> Path | None:
        """The folder of a split. Without split folders, `root` is the folder of `train`."""
        found = find_splits(self.root)
        if split == "train":
            tell_ignored(self.root, found, self.suffixes, self.things)
        if not any(found.values()):
            return self.root if split == "train" else None
        if len(found[split]) > 1:
            raise UsageError(f"{' and '.join(map(str, found[split]))} are both the {split} split: keep one")
        return found[split][0] if found[split] else None

    def labelled(self, folder: Path) -> tuple[dict[Path, str], list[str]]:
        """The class of each file in the folder of a split, and all class names in order."""
        classes = self.class_folders(folder)
        if not classes:
            hint = f"put the {self.things} into {folder / '<class>'}, one folder per class"
            if folder != self.root:
                hint += (
                    f". If {folder.name} is itself a class, put all class folders into {self.root / 'train'}; "
                    f"if its {self.things} have no labels, give it another name"
                )
            raise UsageError(f"{folder} has no class folders: {hint}")
        if folder == self.root:
            check_classes(folder, classes)
        labelled = {path: name for name, place in classes.items() for path in files_in(place, self.suffixes)}
        return labelled, list(classes)

    def class_folders(self, folder: Path) -> dict[str, Path]:
        """Class name -> folder, for the folder of a split."""
        return class_folders(folder)

    def leave_out(self, bad: dict[Path, str], total: int, whole_list: Path | None = None) -> None:
        """Logs and lists unreadable files of `total` files, or refuses them with `on_bad=error`."""
        named = {self.name(path): reason for path, reason in sorted(bad.items())}
        bad_samples.refuse_or_warn(bad_samples.describe(named, total, self.things, whole_list), self.on_bad)
        self.bad |= named
        bad_samples.write_list(self.split_file, self.bad)

    def as_samples(
        self, kept: Collection[Path], labelled: dict[Path, str], classes: list[str], load: Loader, digests: list[str]
    ) -> Samples:
        """The samples of the files that can be read.

        Args:
            kept: these files, in order.
            labelled: the class of each file.
            classes: class names in order.
            load: position in `kept` -> raw sample.
            digests: of the files in `kept`.
        """
        position = {name: index for index, name in enumerate(classes)}
        targets = [position[labelled[path]] for path in kept]
        return Samples([self.name(path) for path in kept], targets, classes, load, digests)

    def name(self, path: Path) -> str:
        """The name of a sample: the path of its file relative to `root`."""
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


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """All files with these endings below a folder, in a fixed order. Logs how many other files there are."""
    found: list[Path] = []
    others: Counter[str] = Counter()
    for path in files_below(folder):
        suffix = path.suffix.lower()
        if suffix in suffixes:
            found.append(path)
        else:
            others[f"x {suffix}" if suffix else "without an ending"] += 1
    if others:
        kinds = ", ".join(f"{n} {kind}" for kind, n in others.most_common(KINDS_LISTED))
        more = len(others) - KINDS_LISTED
        log.info("%s: ignored %s%s", folder, kinds, f" and {counted(more, 'more kind')}" if more > 0 else "")
    return found
