"""What is said about failures of the machine and of files."""

import errno

import pytest
import torch
from torch.utils.data import DataLoader

from headstart.cli.failures import failure_in_words
from headstart.errors import Failure
from headstart.inputs.base import UnreadableInput
from headstart.inputs.images.files import PictureFiles


@pytest.mark.parametrize(
    ("error", "entry_point", "told"),
    [
        (Failure("the training diverged"), "train", "the training diverged"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "train", "data.batch_size="),
        (torch.OutOfMemoryError("CUDA out of memory"), "predict", "Try a smaller batch: batch_size=8"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "evaluate", "batch_size=8"),
        (MemoryError("9 bytes"), "report", "the memory is full"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "train", "data.num_workers=0"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "train", "data.num_workers=0"),
        (ValueError("Expected more than 1 value per channel when training, got"), "train", "data.batch_size=8"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "train", "/a: Permission denied. For another place"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), "export", "/a: Read-only file system."),
        (OSError(errno.ENOSPC, "No space left on device"), "train", "No space left on device"),
    ],
)
def test_expected_failures(error, entry_point, told):
    assert told in failure_in_words(error, entry_point)


def test_a_failure_within_another_one():
    outer = KeyError("cleaning up")
    outer.__context__ = RuntimeError("CUDA out of memory")
    assert "the memory is full" in failure_in_words(outer, "train")


def test_a_fault_of_the_code_is_no_expected_failure():
    assert failure_in_words(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "train") is None
    assert failure_in_words(KeyError("x"), "train") is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_gone(workers, tmp_path):
    """Its name is in the message, also if a loader process has found it."""
    loader = DataLoader(PictureFilesByIndex(tmp_path / "gone.jpg"), num_workers=workers)
    with pytest.raises(UnreadableInput) as raised:
        next(iter(loader))
    told = failure_in_words(raised.value, "train")
    assert told.startswith(f"{tmp_path / 'gone.jpg'}: cannot be opened (No such file or directory). It could be read")


class PictureFilesByIndex(torch.utils.data.Dataset):
    def __init__(self, path):
        self.load = PictureFiles([str(path)])

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.load(index)
