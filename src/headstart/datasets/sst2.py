"""SST-2 of the GLUE benchmark: sentences and phrases of film reviews, negative or positive."""

from pathlib import Path
from typing import Any

from headstart.datasets.download import fetch_folder, unpack_zip
from headstart.datasets.text_table import TextTable
from headstart.errors import UsageError

URL = "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip"
SHA256 = "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"
"""From the list of TensorFlow Datasets, `url_checksums/glue.txt` (there for another address of the same archive)."""
SIZE = 7_439_277  # bytes, from the same list
FOLDER = "SST-2"
TRAIN, DEV = "train.tsv", "dev.tsv"


class SST2(TextTable):
    """67,349 sentences and phrases to train, 872 sentences to test: `dev`, because GLUE's `test` has no labels.

    `val` is cut from `train`. `root` has `train.tsv` and `dev.tsv`, with or without a header, or is the folder in which
    the archive was unpacked. If `root` does not exist, it is created from the downloaded archive. An existing folder is
    never changed.

    Args:
        root: the folder.
        url: of the archive.
        sha256: checksum of the archive.
        on_bad: `leave_out` rows that cannot be used, or `error`.
        options: arguments of `DataModule`.
    """

    one_label = True
    label_names = {"0": "negative", "1": "positive"}

    def __init__(self, *, root: str, url: str = URL, sha256: str = SHA256, on_bad: str = "leave_out", **options: Any):
        super().__init__(root=root, on_bad=on_bad, **options)
        self.url, self.sha256 = url, sha256

    def prepare_data(self) -> None:
        """Downloads and unpacks the archive if the folder does not exist; only one of several processes does it.

        Raises:
            UsageError: no network, a full disk, or an archive with another checksum.
        """
        fetch_folder(self.root, self.url, self.sha256, SIZE, "the SST-2 archive of GLUE", unpack)

    def files(self) -> dict[str, Path]:
        """`train.tsv`, and `dev.tsv` as the test split."""
        for folder in (self.root, self.root / FOLDER):
            found = {split: folder / name for split, name in (("train", TRAIN), ("test", DEV))}
            found = {split: file for split, file in found.items() if file.is_file()}
            if found:
                return found
        raise UsageError(
            f"data.root={self.root} has neither {TRAIN} nor {DEV}: put them there. To download the archive (7 MB), "
            f"remove {self.root} or give a data.root that does not exist"
        )


def unpack(archive: Path, target: Path) -> None:
    """Unpacks the two files with labels into the new folder `target`.

    Raises:
        UsageError: no zip archive, or without these files; or the disk is full.
    """
    unpack_zip(archive, target, {f"{FOLDER}/{TRAIN}", f"{FOLDER}/{DEV}"}.__contains__, "files", inside=FOLDER)
