"""Cats and dogs: Microsoft's public copy of the Kaggle "Dogs vs. Cats" photos."""

import logging
from pathlib import Path
from typing import Any

from headstart.datasets.class_folders import class_folders, files_in
from headstart.datasets.download import fetch_folder, unpack_zip
from headstart.datasets.image_folder import ImageFolder
from headstart.errors import UsageError
from headstart.inputs.images.decode import PICTURE_SUFFIXES

log = logging.getLogger(__name__)

URL = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"
SIZE = 825_000_000  # bytes, approximately
CLASSES = ["cat", "dog"]


class CatsDogs(ImageFolder):
    """25,000 photos of cats and dogs. Those that cannot be read are listed and left out.

    `root` may have `cat` and `dog` sub-folders in any layout of `ImageFolder`, be the unpacked archive
    (`PetImages/Cat`), or be Kaggle's flat folder (`cat.0.jpg`, also inside `train`; its `test` has no labels and is not
    used). If `root` does not exist, it is created from the downloaded archive. An existing folder is never changed.

    Args:
        root: the folder.
        url: of the archive.
        sha256: checksum of the archive.
        options: arguments of `ImageFolder`.
    """

    def __init__(self, *, root: str, url: str = URL, sha256: str = SHA256, **options: Any):
        super().__init__(root=root, **options)
        self.url, self.sha256 = url, sha256

    def prepare_data(self) -> None:
        """Downloads and unpacks the archive if the folder does not exist; only one of several processes does it.

        Raises:
            UsageError: no network, a full disk, or an archive with another checksum.
        """
        fetch_folder(self.root, self.url, self.sha256, SIZE, "the cats and dogs archive", unpack_pictures)

    def split_folder(self, split: str) -> Path | None:
        """As in `ImageFolder`. The archive's folder `PetImages` is `train`; a `test` without labels is not used."""
        archive = self.root / "PetImages"
        if archive.is_dir() or _labels_by_file_name(self.root):
            folder = archive if archive.is_dir() else self.root
            return folder if split == "train" else None
        folder = super().split_folder(split)
        if folder and split != "train" and not _labels_by_file_name(folder) and not _labelled_folders(folder):
            log.info("%s is not used: it has no labels", folder)
            return None
        return folder

    def labelled(self, folder: Path) -> tuple[dict[Path, str], list[str]]:
        """As in `ImageFolder`; the classes are always `cat` and `dog`, in this order."""
        found = _labels_by_file_name(folder)
        for place, name in _labelled_folders(folder).items():
            found |= dict.fromkeys(files_in(place, PICTURE_SUFFIXES), name)
        if not found:
            raise UsageError(
                f"{folder} has neither cat and dog folders with pictures nor files like cat.0.jpg: put them there. "
                f"To download the archive (825 MB), remove {self.root} or give a data.root that does not exist"
            )
        return found, list(CLASSES)


def unpack_pictures(archive: Path, target: Path) -> None:
    """Unpacks the JPEG files of a zip archive into the new folder `target`, all of them or none.

    Raises:
        UsageError: no zip archive, or the disk is full.
    """
    unpack_zip(archive, target, lambda name: name.lower().endswith(".jpg"), "pictures")


def _labels_by_file_name(folder: Path) -> dict[Path, str]:
    """The class of each picture in `folder` whose name begins with it: `cat.0.jpg`."""
    files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES)
    named = ((path, path.name.split(".")[0].lower()) for path in files)
    return {path: name for path, name in named if name in CLASSES}


def _labelled_folders(folder: Path) -> dict[Path, str]:
    """The class of each sub-folder that has its name, such as `cat`, `Cat` or `cats`."""
    named = ((place, name.lower().removesuffix("s")) for name, place in class_folders(folder).items())
    return {place: name for place, name in named if name in CLASSES}
