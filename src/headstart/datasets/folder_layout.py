"""Recognises how the folders and files of a data set are laid out, and layouts that were not meant."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from headstart.errors import UsageError, counted, listed
from headstart.files import TABLE_SUFFIXES
from headstart.inputs.folders import ARCHIVES, is_junk
from headstart.inputs.images.decode import PICTURE_SUFFIXES

log = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names of split folders and files, alone or as in `test_set`, `training-images` or `valdata`."""
BESIDE_TRAIN = {"val": ("dev", "eval", "evaluation"), "test": ("holdout",)}
"""Names of splits only beside a `train` folder or file: otherwise they could be classes."""
ALL_NAMES = {split: (*names, *BESIDE_TRAIN.get(split, ())) for split, names in SPLIT_NAMES.items()}
TABLES = (".json", ".xlsx", ".xls", ".ods")
"""Endings of files that hold rows, and that are not read."""
ENDING = r"[-_. ]?(sets?|data|dataset|images?|imgs?|pictures?|photos?|split|folder)?"


def find_splits(root: Path) -> dict[str, list[Path]]:
    """The folders of each split in `root`; empty lists if there is none."""
    return by_split([path for path in sorted(root.iterdir()) if path.is_dir()], lambda path: path.name)


def by_split(paths: Sequence[Path], name: Callable[[Path], str]) -> dict[str, list[Path]]:
    """The folders or files of each split, by their names; empty lists if there is none."""
    found = {split: [path for path in paths if _reads_like(name(path), names)] for split, names in SPLIT_NAMES.items()}
    if found["train"]:
        for split, names in BESIDE_TRAIN.items():
            found[split] += [path for path in paths if path not in found[split] and _reads_like(name(path), names)]
    return found


def split_named(value: str) -> str | None:
    """The split that a value names, such as `val` for `valid` or `dev`; None: none."""
    return next((split for split, names in ALL_NAMES.items() if _reads_like(value.strip(), names)), None)


def _reads_like(name: str, names: tuple[str, ...]) -> bool:
    return re.fullmatch(f"({'|'.join(names)}){ENDING}", name.lower()) is not None


def refuse_file(root: Path, things: str) -> None:
    """Refuses a file as `data.root`, and says what to do with it.

    Args:
        root: the path.
        things: the word for the files of the data set, such as `pictures`.

    Raises:
        UsageError: `root` is a file.
    """
    if root.is_file():
        raise UsageError(f"data.root={root} is {_kind_and_advice(root, things)}")


def _kind_and_advice(file: Path, things: str) -> str:
    """What kind of file this is, and what to do instead of giving it as `data.root`."""
    suffix = file.suffix.lower()
    if suffix in ARCHIVES:
        return "an archive: unpack it, and give the folder that it makes"
    if suffix in TABLE_SUFFIXES:
        data = "text_table" if things == "texts" else "table"
        return f"a file: if it is a table of {things} and their labels, type data={data} data.root={file}"
    if suffix in TABLES:
        return f"a table that is not read: save it as .csv, and type data=table data.root={file.with_suffix('.csv')}"
    if suffix in PICTURE_SUFFIXES:
        return f"one picture: give the folder that has one sub-folder per class, perhaps {file.parent.parent}"
    return "a file: give a folder with one sub-folder per class"


def tell_ignored(root: Path, splits: dict[str, list[Path]], suffixes: Collection[str], things: str) -> None:
    """Warns of folders and files in `root` that belong to no split, or beside class folders to no class.

    Args:
        root: the folder of the data set.
        splits: the folders of each split.
        suffixes: endings of the files of the data set.
        things: the word for them.
    """
    used = {path for folders in splits.values() for path in folders}
    others = [path.name for path in sorted(root.iterdir()) if path.is_dir() and not is_junk(path.name)]
    others = [name for name in others if root / name not in used]
    if used and others:
        log.warning("%s: not used, because they are no split: %s", root, listed(others))
    loose = sum(1 for path in root.iterdir() if path.suffix.lower() in suffixes and path.is_file())
    if loose:
        log.warning("%s: %s in no class folder, which are not used: %d", root, things, loose)


def tell_outside(files: Iterable[Path], root: Path, *folders: Path) -> None:
    """Warns once of files that lie outside `data.root`, behind a link or by their path in a table.

    This is allowed, but data of a stranger could so name private files, which would then be in figures and reports.

    Args:
        files: of the samples.
        root: `data.root`; of a file, its folder counts.
        folders: where samples may lie, too, because the person named these folders.
    """
    named = (root.parent if root.is_file() else root, *folders)
    allowed = tuple(os.path.join(os.path.realpath(folder), "") for folder in named)
    places: dict[Path, str] = {}  # of each folder, because to find one takes long
    outside = []
    for file in files:
        if file.parent not in places:
            places[file.parent] = os.path.realpath(file.parent)
        real = os.path.realpath(file) if file.is_symlink() else os.path.join(places[file.parent], file.name)
        if not real.startswith(allowed):
            outside.append(real)
    if outside:
        log.warning(
            "%s outside data.root=%s, such as %s. If the data come from somebody else, check that these files may be "
            "used",
            f"{counted(len(outside), 'sample')} {'lies' if len(outside) == 1 else 'lie'}",
            *(root, outside[0]),
        )


def check_classes(root: Path, classes: dict[str, Path]) -> None:
    """Refuses class folders of a `root` without splits that are something else; warns of names that differ in case.

    Args:
        root: the folder that holds the class folders.
        classes: class name -> folder.

    Raises:
        UsageError: the only folder holds the class folders, or all folders hold the same sub-folders.
    """
    inside = {name: _folders_in(place) for name, place in classes.items()}
    if len(classes) == 1:
        ((name, place),) = classes.items()
        if len(inside[name]) > 1:
            raise UsageError(
                f"data.root={root} holds only the folder {name!r}, with {listed(sorted(inside[name]))} in it: if these "
                f"are the classes, type data.root={place}"
            )
    same = next(iter(inside.values()), frozenset())
    if len(classes) > 1 and len(same) > 1 and all(folders == same for folders in inside.values()):
        raise UsageError(
            f"the folders {listed(list(classes))} in {root} all hold the same folders, {listed(sorted(same))}: "
            "are they the splits? Then call them train, val and test. If they are the classes, put them into "
            f"{root / 'train'}"
        )
    by_case = defaultdict(list)
    for name in classes:
        by_case[name.casefold()].append(name)
    for names in by_case.values():
        if len(names) > 1:
            log.warning("the names of the classes %s differ only in case: are they one class?", listed(names))


def _folders_in(folder: Path) -> frozenset[str]:
    return frozenset(path.name.casefold() for path in folder.iterdir() if path.is_dir() and not is_junk(path.name))
