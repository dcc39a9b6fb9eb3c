"""Download of one file, or of a folder in an archive.

pooch checks the SHA-256 of a file and puts it in place; an interrupted download is continued.

pooch cannot continue a download: it starts again. `_download` below exists for an archive of 825 MB. It keeps what has
arrived in `<target>.part` and asks the server for the rest (HTTP Range).
"""

import logging
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pooch
import requests
from filelock import FileLock

from headstart.errors import UsageError
from headstart.progress import progress_bar

log = logging.getLogger(__name__)
pooch.get_logger().setLevel(logging.WARNING)  # its messages repeat ours

TIMEOUT_SECONDS = 30.0
WAITS_SECONDS = (1.0, 4.0)
"""Pauses before the second, third, ... attempt. After the last attempt the download fails."""
CHUNK_BYTES = 16_384
"""Bytes read at a time; an interruption loses at most these."""


def fetch(url: str, target: Path, sha256: str | None, size_hint: int | None = None) -> Path:
    """Downloads `url` to `target`, unless the file exists. Continues from `<target>.part` of an interrupted run.

    Args:
        url: http or https.
        target: file to create; its folder is created too.
        sha256: 64 hex digits that the file must have. None: the content is not checked.
        size_hint: bytes, for the progress bar and the disk space when the server does not say.

    Raises:
        UsageError: no network, an HTTP error, no space, the wrong checksum. The message says what to do.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"cannot download {url!r}: give an address that starts with https:// or http://")
    try:
        if target.exists():
            return _verified(target, sha256)  # pooch would overwrite a file with another checksum
        pooch.retrieve(url, sha256, target.name, target.parent, downloader=partial(_download, target, size_hint))
    except UsageError:
        raise
    except ValueError as error:  # pooch: the checksum is wrong
        raise UsageError(
            f"{url} was downloaded, but {error} Run the same command again, or get the file in another way and put it "
            f"at {target.absolute()}"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write {_part(target)} ({reason}): choose another folder or make room") from error
    return target


def fetch_folder(
    root: Path, url: str, sha256: str, size: int, title: str, unpack: Callable[[Path, Path], None]
) -> None:
    """Creates the folder `root` from a downloaded archive, unless it exists; only one of several processes does it.

    An archive that a person has put beside `root` is used and kept.

    Args:
        root: the folder.
        url: of the archive.
        sha256: checksum of the archive.
        size: bytes of the archive, approximately.
        title: what the archive holds, for the log.
        unpack: creates a folder, its second argument, from an archive.

    Raises:
        UsageError: no network, a full disk, or an archive with another checksum.
    """
    if root.exists():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if root.exists():
            return
        archive = root.parent / Path(url).name
        is_ours = not archive.exists()  # else a person has put it there
        if is_ours:
            log.info("%s does not exist: downloading %s (about %.3g MB)", root, title, size / 1e6)
        fetch(url, archive, sha256, size)
        unpack(archive, root)
        if is_ours:
            archive.unlink()


def unpack_zip(archive: Path, target: Path, wanted: Callable[[str], bool], unit: str, inside: str = ".") -> None:
    """Unpacks files of a zip archive into the new folder `target`, all of them or none.

    Args:
        archive: the archive.
        target: the folder to create.
        wanted: whether to unpack the file of this name.
        unit: the word for the files, for the progress bar.
        inside: the folder of the archive that becomes `target`.

    Raises:
        UsageError: no zip archive, nothing wanted in it, or the disk is full.
    """
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as temporary,
            zipfile.ZipFile(archive) as source,
        ):
            folder = Path(temporary, target.name)
            names = [name for name in source.namelist() if wanted(name)]
            with progress_bar(f"Unpacking {archive.name}", len(names), unit) as bar:
                for name in names:
                    source.extract(name, folder)
                    bar.update()
            os.replace(folder / inside, target)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"cannot unpack {archive} into {target}: {error}") from error


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _verified(file: Path, sha256: str | None) -> Path:
    if sha256 and (given := pooch.file_hash(file)) != sha256.lower():
        raise UsageError(
            f"{file} has SHA-256 {given}, expected {sha256}: remove or rename it, then run the same command again"
        )
    return file


def _download(target: Path, size_hint: int | None, url: str, output: str, _pooch: object) -> None:
    """Downloads `url` to `<target>.part` in several attempts, then renames it to `output`, where pooch checks it."""
    part = _part(target)
    for wait in (*WAITS_SECONDS, None):
        try:
            _continue(url, part, size_hint)
            os.replace(part, output)
            return
        except requests.RequestException as error:
            problem = error
        if wait is None or _is_final(problem):
            break
        log.info("%s: %s; trying again in %g s", url, _reason(problem), wait)
        time.sleep(wait)
    by_hand = f"or get the file in another way and put it at {target.absolute()}"
    if problem.response is None and part.exists() and part.stat().st_size:
        stopped = f"the download of {url} stopped after {part.stat().st_size:,} bytes ({_reason(problem)})"
        raise UsageError(f"{stopped}: run the same command again to resume, {by_hand}") from problem
    failed = f"cannot download {url} ({_reason(problem)})"
    raise UsageError(f"{failed}: check the network and run the same command again, {by_hand}") from problem


def _continue(url: str, part: Path, size_hint: int | None) -> None:
    """One attempt: asks for what follows the bytes of `part`, and appends it."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "headstart", "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        content_range = response.headers.get("Content-Range", "")
        if response.status_code == 416 and done:  # no bytes follow: `part` is the whole file, or another file
            if content_range == f"bytes */{done}":
                return
            part.unlink()
        response.raise_for_status()
        if not content_range.startswith(f"bytes {done}-"):
            done = 0  # this server sends the whole file
        rest = int(response.headers.get("Content-Length", 0)) or (size_hint or 0) - done
        check_space(part.parent, rest)
        total = max(done + rest, 0) or None
        with open(part, "ab") as stream, progress_bar(f"Downloading {part.stem}", total, "B", initial=done) as bar:
            stream.truncate(done)
            for chunk in response.iter_content(CHUNK_BYTES):
                stream.write(chunk)
                bar.update(len(chunk))


def _is_final(error: requests.RequestException) -> bool:
    """Whether another attempt would get the same answer, such as 404; not after a timeout or too many requests."""
    status = 500 if error.response is None else error.response.status_code
    return status < 500 and status not in (408, 416, 429)


def _reason(error: requests.RequestException) -> str:
    """A few words: requests wraps the error of the system several times, and its text repeats the address."""
    if error.response is not None:
        return f"HTTP status {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the server closed the connection"
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return str(cause)


def check_space(folder: Path, needed: int) -> None:
    """Raises a UsageError when the disk of `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(f"{folder} has {free:,} bytes free, {needed:,} are needed: make room or choose another folder")
