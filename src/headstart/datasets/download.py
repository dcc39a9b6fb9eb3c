"""Fetch a file: resumed after an interruption, verified, and never half there."""

import hashlib
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from headstart.errors import UsageError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
WAITS_SECONDS = (1.0, 4.0)
"""Pauses before the second, third, ... attempt; after the last one the user is asked."""
_CHUNK = 1 << 20


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
        check_space(part.parent, (total or size_hint or 0) - have)
        _receive(response, part, have, total, size_hint)


def _receive(response: http.client.HTTPResponse, part: Path, have: int, total: int | None, hint: int | None) -> None:
    """Append to the first `have` bytes of `part` until it has `total`."""
    with progress_bar(f"Downloading {part.stem}") as bar, open(part, "ab") as stream:
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
    with progress_bar(f"Verifying {path.name}") as bar, open(path, "rb") as stream:
        task = bar.add_task("", total=path.stat().st_size)
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            bar.advance(task, len(chunk))
    return digest.hexdigest()


def check_space(folder: Path, needed: int) -> None:
    """Raises a UsageError when the disk of `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(f"{folder} has {free:,} bytes free, {needed:,} are needed: make room or choose another folder")


def progress_bar(what: str) -> Progress:
    """A bar of bytes on stderr that is gone when it is full."""
    columns = TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)
