"""Cats and dogs: the public Microsoft copy of the Kaggle "Dogs vs. Cats" photos."""

import logging
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from headstart.datasets.download import fetch
from headstart.datasets.image_folder import ImageFolder, class_folders, pictures
from headstart.errors import UsageError
from headstart.inputs.images.decode import PICTURE_SUFFIXES
from headstart.progress import progress_bar

log = logging.getLogger(__name__)

URL = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"
SIZE = 825_000_000  # bytes, about
CLASSES = ["cat", "dog"]


class CatsDogs(ImageFolder):
    """25,000 photos of cats and dogs; some of them cannot be read and are left out, with a list.

    `root` may be a folder with `cat` and `dog` sub-folders in any layout `ImageFolder` knows, the unpacked archive
    (`PetImages/Cat`), or Kaggle's flat one (`cat.0.jpg`, also below `train`), whose `test` has no labels and is passed
    over. A folder that does not exist is made by downloading the archive; one that exists is never written to.

    Args:
        root: the folder.
        url: of the archive.
        sha256: the archive must have this hash.
        options: those of `ImageFolder`.
    """

    def __init__(self, *, root: str, url: str = URL, sha256: str = SHA256, **options: Any):
        super().__init__(root=root, **options)
        self.url, self.sha256 = url, sha256

    def prepare_data(self) -> None:
        """Downloads and unpacks the archive when the folder does not exist; several processes do it once.

        Raises:
            UsageError: no network, or not the archive that was expected.
        """
        if self.root.exists():
            return
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.root}.lock"):
            if self.root.exists():
                return
            archive = self.root.parent / Path(self.url).name
            is_ours = not archive.exists()  # else a person has put it there
            if is_ours:
                log.info("%s does not exist: downloading the cats and dogs archive (about 825 MB)", self.root)
            fetch(self.url, archive, self.sha256, SIZE)
            unpack_pictures(archive, self.root)
            if is_ours:
                archive.unlink()

    def split_folder(self, split: str) -> Path | None:
        """As `ImageFolder`, but the archive's own top folder is looked through and an unlabelled test is none."""
        inner = self.root / "PetImages"
        if inner.is_dir() or _flat(self.root):
            whole = inner if inner.is_dir() else self.root
            return whole if split == "train" else None
        folder = super().split_folder(split)
        if folder and split != "train" and not _flat(folder) and not _folders(folder):
            log.info("%s has no labels: it is not used", folder)
            return None
        return folder

    def labelled(self, folder: Path) -> tuple[dict[Path, str], list[str]]:
        """Classes are `cat` and `dog`, in this order, however the folders or files spell them."""
        found = _flat(folder)
        for place, name in _folders(folder).items():
            found |= dict.fromkeys(pictures(place), name)
        if not found:
            raise UsageError(
                f"{folder} has neither cat and dog folders with pictures nor files like cat.0.jpg: put them there. "
                f"To have the archive downloaded (825 MB), remove {self.root} or give a data.root that does not exist"
            )
        return found, list(CLASSES)


def unpack_pictures(archive: Path, target: Path) -> None:
    """Unpacks the JPEG files of a zip archive into the new folder `target`, all of them or none.

    Raises:
        UsageError: no zip archive, or the disk is full.
    """
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as temporary,
            zipfile.ZipFile(archive) as source,
        ):
            folder = Path(temporary, target.name)
            names = [name for name in source.namelist() if name.lower().endswith(".jpg")]
            with progress_bar(f"Unpacking {archive.name}", len(names), "pictures") as bar:
                for name in names:
                    source.extract(name, folder)
                    bar.update()
            os.replace(folder, target)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"cannot unpack {archive} into {target}: {error}") from error


def _flat(folder: Path) -> dict[Path, str]:
    """The class of the pictures that lie directly in a folder and are named after it."""
    files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES)
    named = ((path, path.name.split(".")[0].lower()) for path in files)
    return {path: name for path, name in named if name in CLASSES}


def _folders(folder: Path) -> dict[Path, str]:
    """The class of the folders that are named after one, `Cat` or `cats` alike."""
    named = ((place, name.lower().removesuffix("s")) for name, place in class_folders(folder).items())
    return {place: name for place, name in named if name in CLASSES}
