"""A folder of pictures with one sub-folder per class."""

from pathlib import Path
from typing import Any

from headstart.data.samples import Samples
from headstart.datasets.class_folders import ClassFolders
from headstart.errors import UsageError
from headstart.inputs.images.decode import PICTURE_SUFFIXES
from headstart.inputs.images.files import PictureFiles
from headstart.inputs.images.scan import results_file, scan_pictures


class ImageFolder(ClassFolders):
    """`root/train/<class>/*.jpg`, and so for `val` and `test`; or `root/<class>/*.jpg`, which is cut into splits.

    Every picture is decoded once before training.

    Args:
        root: the folder.
        on_bad: `leave_out` unreadable pictures, or `error`.
        cache: folder for the results of the check; None checks all pictures in each run.
        options: arguments of `DataModule`.
    """

    things = "pictures"
    suffixes = PICTURE_SUFFIXES

    def __init__(self, *, root: str, on_bad: str = "leave_out", cache: str | None = None, **options: Any):
        super().__init__(root=root, on_bad=on_bad, **options)
        self.cache = Path(cache).expanduser() if cache else None

    def readable(self, folder: Path, labelled: dict[Path, str], classes: list[str]) -> Samples:
        """As in `ClassFolders`."""
        # one file per split folder, because each scan replaces the list of bad files beside it
        result = scan_pictures(list(labelled), results_file(self.cache, folder))
        if result.bad:
            self.leave_out(result.bad, len(labelled), result.bad_list)
        kept = [path for path in labelled if path not in result.bad]
        if not kept:
            raise UsageError(f"{folder} has no picture that can be read (of {len(labelled)} files): put some there")
        load = PictureFiles([str(path) for path in kept], grey_bits=result.grey_bits)
        return self.as_samples(kept, labelled, classes, load, [result.digests[path] for path in kept])
