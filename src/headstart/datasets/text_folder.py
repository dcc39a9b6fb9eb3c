"""A folder of text files with one sub-folder per class."""

import logging
from dataclasses import replace
from pathlib import Path

from headstart.data.samples import Samples
from headstart.datasets.class_folders import ClassFolders, class_folders
from headstart.errors import UsageError, listed
from headstart.inputs.base import UnreadableInput
from headstart.inputs.folders import files_below
from headstart.inputs.text.files import Texts, decoded, digest, usable
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.progress import progress_bar

log = logging.getLogger(__name__)

UNLABELLED = {"unsup", "unlabeled", "unlabelled"}
"""Names of folders whose texts have no labels, such as `unsup` of the IMDB reviews (`aclImdb`)."""


class TextFolder(ClassFolders):
    """`root/train/<class>/*.txt`, and so for `val` and `test`; or `root/<class>/*.txt`, which is cut into splits.

    Each file holds one text in UTF-8. All texts are in memory. Folders of texts without labels (`UNLABELLED`) are not
    used.

    Args:
        root: the folder.
        on_bad: `leave_out` files without text or not in UTF-8, or `error`.
        options: arguments of `DataModule`.
    """

    things = "texts"
    suffixes = TextPreprocess.suffixes

    def class_folders(self, folder: Path) -> dict[str, Path]:
        """As in `ClassFolders`, without the folders of texts that have no labels."""
        found = class_folders(folder)
        if left := [name for name in found if name.lower() in UNLABELLED]:
            log.info("%s: not used, because the texts have no labels: %s", folder, listed(left))
        return {name: place for name, place in found.items() if name not in left}

    def readable(self, folder: Path, labelled: dict[Path, str], classes: list[str]) -> Samples:
        """As in `ClassFolders`."""
        if not labelled:
            others = sum(1 for place in self.class_folders(folder).values() for _ in files_below(place))
            raise UsageError(
                f"{folder} has no texts in its class folders: texts need the ending .txt (other files there: {others})"
            )
        texts, bad = _read(list(labelled))
        if bad:
            self.leave_out(bad, len(labelled))
        if not texts:
            raise UsageError(f"{folder} has no text that can be read (of {len(labelled)} .txt files): put some there")
        found = list(texts.values())
        samples = self.as_samples(list(texts), labelled, classes, Texts(found), list(map(digest, found)))
        return replace(samples, copies_together=True)


def _read(files: list[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """The text of each readable file, and the reason for each other file."""
    texts: dict[Path, str] = {}
    bad: dict[Path, str] = {}
    with progress_bar("Reading texts", len(files), "texts") as bar:
        for file in files:
            try:
                texts[file] = usable(decoded(str(file)))
            except UnreadableInput as error:
                bad[file] = error.reason
            bar.update()
    return texts, bad
