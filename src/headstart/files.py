"""Files: complete or not written at all, checked for damage when read; JSON, YAML, CSV, and paths in messages.

Nothing here loads torch until a file of `torch.save` is read.
"""

import csv
import errno
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headstart.errors import UsageError, printable

GB = 10**9  # bytes
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt")
HUB_ADDRESS = "hf://"
"""Beginning of the address of weights on the Hugging Face hub: `hf://owner/name`, or `hf://owner/name/file`."""
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"  # first bytes of a file of torch.save: since torch 1.6, and before
MOST_VALUES, MOST_LEVELS = 10**7, 50  # of the content of a file of torch.save
SHARED = 4  # tensors that share memory may have this many times its size
LONGEST_YAML = 10**6  # characters
FOLDER_ATTRIBUTE = 0x10  # marks a record of a zip archive as a folder


class UnreadableError(ValueError):
    """A file is damaged or of another kind. The message is the reason; the caller puts the file's name before it."""


class NotPlainError(UnreadableError):
    """A file is complete, but holds more than tensors and plain data."""


@contextmanager
def replacing(path: Path, binary: bool = False) -> Iterator[IO]:
    """A stream to a temporary file in the same folder, which replaces `path` when everything is on the disk.

    After an error the old file is unchanged and the temporary one is removed. After a power cut there is the old file
    or the new one. File names that are not valid Unicode are written as the bytes they were.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    text = {} if binary else {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    try:
        with temporary.open("wb" if binary else "w", **text) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files of `path` that killed processes of this machine left behind.

    Do not use it for a file that another machine may write: the processes of that machine look dead from here.
    """
    with suppress(OSError):  # not a reason to stop; if the folder is broken, the next write says so
        for file in path.parent.iterdir():
            pid = file.name.removeprefix(f"{path.name}.").removesuffix(".tmp")
            if file.name == f"{path.name}.{pid}.tmp" and re.fullmatch("[0-9]+", pid) and not _is_running(int(pid)):
                file.unlink(missing_ok=True)


def read_torch_file(path: Path, map_location: Any = "cpu", legacy: bool = False) -> Any:
    """Reads tensors and plain data that `torch.save` wrote, after checking every byte. No code in the file is executed.

    A small file cannot fill the memory of code that walks through the content or converts its tensors.

    Args:
        path: the file.
        map_location: as for `torch.load`.
        legacy: whether files of torch before 1.6 are read too. They have no checksums: damage may go unnoticed.

    Raises:
        UnreadableError: the file is damaged, cut short, or not a file of `torch.save`.
        NotPlainError: it holds more than tensors and plain data.
        OSError: it cannot be opened.
    """
    with path.open("rb") as stream:  # opened once, so that the verified file is the one that is read
        start = stream.read(len(ZIP_START))
        if start == ZIP_START:
            _verify(stream)
        elif not (legacy and start.startswith(PICKLE_START)):
            raise UnreadableError(
                "it is not a file of torch.save, or its beginning is damaged" if start else "it is empty"
            )
        stream.seek(0)
        content = _load(stream, map_location, verified=start == ZIP_START)
    _refuse_expanding(content)
    return content


def _refuse_expanding(content: Any) -> None:
    """Refuses content that is much larger than its file.

    Raises:
        UnreadableError: the content, written without references, has over `MOST_VALUES` values (keys do not count) or
            over `MOST_LEVELS` levels; a tensor does not have all its values in the file; or many tensors share them.
    """
    import torch

    sizes: dict[int, int] = {}  # of containers that were counted, by identity
    tensors: list[torch.Tensor] = []
    storages: dict[int, int] = {}  # address -> bytes

    def size(node: Any, level: int, name: Any) -> int:
        if isinstance(node, torch.Tensor):
            if node.layout != torch.strided or node.is_meta or node.nbytes > node.untyped_storage().nbytes():
                raise UnreadableError(
                    f"the tensor {printable(str(name))!r} with the shape {tuple(node.shape)} is sparse, or its values "
                    "are not all in the file, so a small file could fill the memory. Save it with all values: "
                    "tensor.to_dense().contiguous()"
                )
            tensors.append(node)
            storages[node.untyped_storage().data_ptr()] = node.untyped_storage().nbytes()
            return 1
        if not isinstance(node, (dict, list, tuple, set)):
            return 1
        if id(node) not in sizes:
            if level > MOST_LEVELS:
                raise UnreadableError(f"its content has over {MOST_LEVELS} levels")
            inside = node.items() if isinstance(node, dict) else enumerate(node)
            sizes[id(node)] = 1 + sum(size(each, level + 1, key) for key, each in inside)
        if sizes[id(node)] > MOST_VALUES:
            raise UnreadableError(f"its content has over {MOST_VALUES:,} values")
        return sizes[id(node)]

    size(content, 0, "")
    if sum(each.nbytes for each in tensors) > SHARED * sum(storages.values()) + GB:
        raise UnreadableError("its tensors share their values so often that a small file could fill the memory")


def _verify(stream: IO[bytes]) -> None:
    """Compares every record with its checksum: `torch.save` writes checksums, `torch.load` ignores them."""
    with _unreadable_if_damaged():
        archive = zipfile.ZipFile(stream)
    records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise UnreadableError(
            "its records are compressed, which torch.save does not do: a small file could fill the memory"
        )
    if sum(record.file_size for record in records) > os.fstat(stream.fileno()).st_size:
        raise UnreadableError("its records overlap, which torch.save does not do: a small file could fill the memory")
    with _unreadable_if_damaged():
        wrong = archive.testzip()
    # torch skips records that are folders, and would return uninitialised memory as the tensor
    wrong = wrong or next((record.filename for record in records if record.external_attr & FOLDER_ATTRIBUTE), None)
    if wrong is not None:
        raise UnreadableError(f"it is damaged: the checksum of its record {wrong} is wrong")


@contextmanager
def _unreadable_if_damaged() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zipfile raises errors of many classes for a damaged directory
        raise UnreadableError(f"it is damaged or cut short: {_first_line(error)}") from error


def _load(stream: IO[bytes], map_location: Any, verified: bool) -> Any:
    import torch

    try:
        return torch.load(stream, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if not verified and "GLOBAL" not in str(error):
            raise UnreadableError("it is damaged, or not a file of torch.save") from error
        found = re.search(r"GLOBAL (\S+)", str(error))
        content = "more than tensors and plain data" + (f" ({found[1]})" if found else "")
        damaged = "" if verified else "is damaged, or "
        raise NotPlainError(f"it {damaged}holds {content}, which is not read for safety") from error
    except Exception as error:  # torch does so, too
        raise UnreadableError(f"torch cannot read it: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_running(pid: int) -> bool:
    """Whether this machine runs a process with this number; True where that cannot be found out."""
    if os.name == "nt":  # signal 0 would be Ctrl-C there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """Writes a renaming in `folder` to the disk. Windows needs no such call, and some network folders allow none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_table(file: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file, complete or not at all. The first row holds the names of the columns."""
    with replacing(file) as stream:
        csv.writer(stream).writerows(rows)


@dataclass(frozen=True)
class Column:
    """One more column for a table: its name, and a value for each row."""

    name: str
    values: Sequence[str]


def with_column(rows: list[list[str]], column: Column | None) -> list[list[str]]:
    """A table with one more column at the end; the first row holds the names. None: the table as it is."""
    if column is None:
        return rows
    return [[*row, value] for row, value in zip(rows, [column.name, *column.values], strict=True)]


@contextmanager
def large_fields() -> Iterator[None]:
    """Lets the csv module read fields above 131,072 characters."""
    before = csv.field_size_limit(2**30)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def as_json(content: Any) -> str:
    """JSON that every language reads: NaN and infinite numbers become null."""
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file that was written with `replacing` and `as_json`.

    Raises:
        UsageError: it is no JSON object.
    """
    with _named_if_damaged(path, "a JSON object"):
        content = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}")
    return content


def no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of `json` for objects in which no key appears twice.

    Raises:
        ValueError: one does.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {printable(key)[:100]!r} appears twice")
        found[key] = value
    return found


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain data, interpolations as written.

    Raises:
        UsageError: it is no YAML with a dictionary or a list, it is longer than `LONGEST_YAML`, or a value in it refers
            to another one (`*name`): a small file could fill the memory.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    of_other_kinds = (AssertionError, AttributeError, TypeError)  # valid YAML, but no dictionary or list
    with _named_if_damaged(path, "a YAML file", yaml.YAMLError, OmegaConfBaseException, *of_other_kinds):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        if len(text) > LONGEST_YAML:
            raise ValueError(f"it has {len(text):,} characters, at most {LONGEST_YAML:,} are read")
        # the scan takes as long as reading; most files have no such sign
        if "*" in text and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("it has references (*name), which no command of Headstart writes")
        return OmegaConf.to_container(OmegaConf.create(text))


@contextmanager
def _named_if_damaged(path: Path, kind: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError, *errors) as error:
        raise UsageError(f"{path} is damaged: {kind} was expected, but {_first_line(error)}") from error


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def relative_to_cwd(path: Path) -> str:
    """A path for messages: relative to the working directory when it is inside, unchanged otherwise."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
