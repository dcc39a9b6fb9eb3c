"""Fetch an archive and unpack it: resumed after an interruption, verified, and never half there."""

import hashlib
import http.client
import logging
import os
import re
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from headstart.errors import UsageError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
WAITS_SECONDS = (1.0, 4.0)
"""Pauses before the second, third, ... attempt; after the last one the user is asked."""
_CHUNK = 1 << 20
_SMALL = 1 << 20  # an archive of a few bytes may unpack to this much, whatever the ratio


class _Interrupted(Exception):  # noqa: N818 - not an error until all attempts are used up
    """The network let us down; worth another attempt."""


def fetch(url: str, target: Path, sha256: str | None, size_hint: int | None = None) -> Path:
    """Download `url` to `target`, unless it is there; what an interrupted run left in `<target>.part` is resumed.

    Args:
        url: http or https.
        target: file to make; its folder is made too.
        sha256: 64 hex digits the file must have. None trusts the server, and that a resumed file has not changed there.
        size_hint: bytes, for the progress bar and the disk space, where the server does not say.

    Raises:
        UsageError: no network, an HTTP error, no space, the wrong checksum; it says what to do.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"cannot download {url!r}: give an address that starts with https:// or http://")
    part = target.with_suffix(target.suffix + ".part")
    try:
        if target.exists():
            if (wrong := _mismatch(target, sha256)) is None:
                return target
            raise UsageError(f"{target} {wrong}: remove or rename it, then run the same command again")
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, target, size_hint)
        if wrong := _mismatch(part, sha256):
            part.unlink()
            raise UsageError(
                f"the download of {url} {wrong}; it has been removed. Run the same command again; "
                "if that does not help, the file on the server has been exchanged since this address was written down"
            )
        os.replace(part, target)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write {part} ({reason}): choose another folder or make room") from error
    return target


def _download(url: str, part: Path, target: Path, size_hint: int | None) -> None:
    """Attempt after attempt until `part` is whole; each goes on where the last one stopped."""
    for wait in (*WAITS_SECONDS, None):
        try:
            return _attempt(url, part, size_hint)
        except urllib.error.HTTPError as error:
            error.close()
            problem: Exception = error
            if error.code < 500 and error.code not in (408, 416, 429):
                break
        except _Interrupted as error:
            problem = error
        if wait is not None:
            log.info("%s: %s; trying again in %g s", url, problem, wait)
            time.sleep(wait)
    if isinstance(problem, _Interrupted) and part.exists() and part.stat().st_size:
        done = f"the download of {url} stopped after {part.stat().st_size:,} bytes ({problem}): "
        raise UsageError(f"{done}run the same command again to resume, or put the file by hand at {target.absolute()}")
    raise UsageError(
        f"cannot download {url} ({problem}): check the network and run the same command again, "
        f"or get the file in another way and put it at {target.absolute()}"
    )


def _attempt(url: str, part: Path, size_hint: int | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "headstart"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after what we have: whole, or not a beginning of this file
            if _total(error.headers.get("Content-Range")) == have:
                return
            part.unlink()
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(getattr(error, "reason", None) or error) from error
    with response:
        if response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            total = _total(response.headers["Content-Range"])
        else:
            have, total = 0, int(response.headers.get("Content-Length") or 0) or None
        _check_space(part.parent, (total or size_hint or 0) - have)
        _receive(response, part, have, total, size_hint)


def _receive(response: http.client.HTTPResponse, part: Path, have: int, total: int | None, hint: int | None) -> None:
    """Append to the first `have` bytes of `part` until it has `total`."""
    with _bar(f"Downloading {part.stem}") as bar, open(part, "ab") as stream:
        task = bar.add_task("", total=total or hint, completed=have)
        stream.truncate(have)
        while have != total and (chunk := _read(response)):
            stream.write(chunk)
            have += len(chunk)
            bar.advance(task, len(chunk))
    if total is not None and have != total:
        raise _Interrupted(f"the server closed the connection after {have:,} of {total:,} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    """Apart from writing, for a full disk is no trouble of the network."""
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(error) from error


def _total(content_range: str | None) -> int | None:
    """The size of the whole file out of `bytes 5-9/10` or `bytes */10`."""
    match = re.fullmatch(r"bytes .*/(\d+)", content_range or "")
    return int(match[1]) if match else None


def _mismatch(path: Path, sha256: str | None) -> str | None:
    """What is wrong with the checksum of `path`, None when nothing is or none is expected."""
    if sha256 is None or (given := _sha256(path)) == sha256.lower():
        return None
    return f"has SHA-256 {given}, expected {sha256}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with _bar(f"Verifying {path.name}") as bar, open(path, "rb") as stream:
        task = bar.add_task("", total=path.stat().st_size)
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            bar.advance(task, len(chunk))
    return digest.hexdigest()


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(f"{folder} has {free:,} bytes free, {needed:,} are needed: make room or choose another folder")


def _bar(what: str) -> Progress:
    columns = TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)


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
            _check_space(temporary, sum(info.file_size for info in chosen))
            with _bar(f"Unpacking {archive.name}") as bar:
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
