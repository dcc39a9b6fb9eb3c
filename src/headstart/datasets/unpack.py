"""Unpack an archive from strangers: nothing outside its folder, no bombs, and never half there."""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from rich.progress import Progress

from headstart.datasets.download import check_space, progress_bar
from headstart.errors import UsageError

_CHUNK = 1 << 20
_SMALL = 1 << 20  # an archive of a few bytes may unpack to this much, whatever the ratio


def unpack_zip(
    archive: Path,
    target: Path,
    *,
    members: Callable[[str], bool] | None = None,
    max_bytes: int = 20 << 30,
    max_members: int = 1_000_000,
    max_ratio: float = 100.0,
) -> Path:
    """Unpack into the new folder `target`, all or nothing; a folder that is there and not empty is taken as done.

    Args:
        members: which names to unpack, None for all.
        max_bytes, max_members: the most that is unpacked.
        max_ratio: the most bytes unpacked for one byte of the archive.

    Raises:
        UsageError: a damaged archive, or one with names that lead elsewhere, links, passwords or too much in it.
    """
    if _is_filled(target):
        return target
    temporary = target.with_name(f".{target.name}.{os.getpid()}.unpacking")
    try:
        with zipfile.ZipFile(archive) as source:
            chosen = [info for info in source.infolist() if members is None or members(info.filename)]
            limit = min(max_bytes, max(_SMALL, int(max_ratio * archive.stat().st_size)))
            _check_members(archive, chosen, limit, max_members)
            temporary.mkdir(parents=True)
            check_space(temporary, sum(info.file_size for info in chosen))
            with progress_bar(f"Unpacking {archive.name}") as bar:
                _extract(source, chosen, temporary, limit, bar)
        os.replace(temporary, target)
    except UsageError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise UsageError(f"{archive} is damaged or no zip archive ({error}): remove it and get it again") from error
    except OSError as error:
        if not _is_filled(target):  # else another process was faster
            raise UsageError(f"cannot unpack {archive} into {target}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _check_members(archive: Path, chosen: Sequence[zipfile.ZipInfo], limit: int, max_members: int) -> None:
    """Everything that can be refused before the first byte is written."""
    if not chosen:
        raise UsageError(f"{archive} holds none of the files that are wanted from it: is it the right archive?")
    if len(chosen) > max_members:
        raise UsageError(f"{archive} holds {len(chosen):,} files, at most {max_members:,} are unpacked")
    for info in chosen:
        if problem := _problem(info):
            raise UsageError(f"{archive} is not unpacked: its member {info.filename!r} {problem}")
    if (total := sum(info.file_size for info in chosen)) > limit:
        raise UsageError(
            f"{archive} would unpack to {total:,} bytes, at most {limit:,} are unpacked from one of its size"
        )


def _problem(info: zipfile.ZipInfo) -> str:
    """What is wrong with a member, "" when nothing is."""
    parts = info.filename.replace("\\", "/").split("/")
    if parts[0] == "" or ":" in parts[0]:
        return "has an absolute path"
    if ".." in parts:
        return "leads out of the folder"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 1:
        return "is encrypted"
    usual = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return "" if usual else "is compressed in an unusual way; only deflate is read"


def _extract(
    source: zipfile.ZipFile, chosen: Sequence[zipfile.ZipInfo], folder: Path, limit: int, bar: Progress
) -> None:
    task = bar.add_task("", total=sum(info.file_size for info in chosen))
    for info in chosen:
        path = folder / info.filename.replace("\\", "/")
        if info.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with source.open(info) as packed, open(path, "xb") as unpacked:
            size = _copy(packed, unpacked, limit)
        limit -= size
        bar.advance(task, size)


def _copy(packed: IO[bytes], unpacked: IO[bytes], limit: int) -> int:
    """Bytes copied; counted here, since the sizes in the archive are only claims."""
    size = 0
    while chunk := packed.read(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise zipfile.BadZipFile("it unpacks to more than it says")
        unpacked.write(chunk)
    return size
