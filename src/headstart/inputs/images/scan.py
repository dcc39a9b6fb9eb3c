"""Which files are readable pictures, and which are the same file twice: known before training, not amid it."""

import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import PIL

from headstart.files import replacing
from headstart.inputs.images.decode import UnreadablePicture, read_picture
from headstart.progress import progress_bar

log = logging.getLogger(__name__)

_BATCH = 1024  # files handed to the threads at a time: bounds what waits in memory
_CANNOT_OPEN = "cannot be opened"
_HEADER = {"headstart_scan": 1, "pillow": PIL.__version__}  # another decoder may come to another verdict

Stamp = tuple[str, int, int]
"""Absolute path, size in bytes, time of change in ns: as long as these stand, the file is taken as unchanged."""

Verdict = tuple[str | None, str | None]
"""(digest, None) of a good picture, (None, reason) of a bad one."""


@dataclass(frozen=True)
class ScanResult:
    """What a scan found. Both dicts have the scanned paths as keys, in the order given."""

    bad: dict[Path, str] = field(default_factory=dict)
    """Why each unreadable picture is unreadable."""
    digests: dict[Path, str] = field(default_factory=dict)
    """BLAKE2b of each readable file's bytes, 40 hex digits: equal digests are equal files."""
    bad_list: Path | None = None
    """Text file of all bad pictures, `path<tab>reason` a line; None when there is none."""


def scan_pictures(paths: Sequence[Path], cache_file: Path | None = None, workers: int | None = None) -> ScanResult:
    """Decode and hash every file once; files unchanged since the last scan come from `cache_file`.

    The result depends neither on the number of threads (`workers`, None for a good one) nor on what was cached.
    Beside the cache file lies `<its stem>.bad.txt`, which lists all bad pictures. Never raises on a bad file.
    """
    stamps = {path: _stamp(path) for path in paths}
    known = _load(cache_file) if cache_file else {}
    pending = [path for path, stamp in stamps.items() if stamp not in known]
    fresh: dict[Path, Verdict] = {}
    try:
        for path, verdict in _verdicts(pending, workers):
            fresh[path] = verdict
    finally:  # an interrupted scan keeps what it has learnt
        keep = {stamps[path]: verdict for path, verdict in fresh.items() if _is_lasting(verdict)}
        is_saved = not keep or _save(cache_file, known | keep)
    verdicts = {path: fresh[path] if path in fresh else known[stamp] for path, stamp in stamps.items()}
    bad = {path: reason for path, (_, reason) in verdicts.items() if reason is not None}
    digests = {path: digest for path, (digest, _) in verdicts.items() if digest is not None}
    return ScanResult(bad, digests, _list_bad(cache_file, bad) if is_saved else None)


def describe_bad(result: ScanResult, root: Path, limit: int = 10) -> str:
    """The number of bad pictures, the first `limit` of them relative to `root`, where to read on; "" without any."""
    if not result.bad:
        return ""
    total = len(result.bad) + len(result.digests)
    lines = [f"{len(result.bad)} of {total} pictures cannot be read:"]
    ordered = sorted(result.bad.items())
    lines += [f"  {_relative(path, root)}: {reason}" for path, reason in ordered[:limit]]
    if len(ordered) > limit:
        lines.append(f"  ... and {len(ordered) - limit} more")
    if result.bad_list:
        lines.append(f"All of them are listed in {result.bad_list}")
    return "\n".join(lines)


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _stamp(path: Path) -> Stamp | None:
    """None where the file cannot be asked; nothing is ever cached for it."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def _is_lasting(verdict: Verdict) -> bool:
    """Whether it holds while the bytes stand; a file that could not be opened may be readable tomorrow."""
    return not (verdict[1] or "").startswith(_CANNOT_OPEN)


def _judge(path: Path) -> Verdict:
    """Read once, decode once, hash once."""
    try:
        content = Path(path).read_bytes()
        read_picture(io.BytesIO(content))
    except UnreadablePicture as error:
        return None, error.reason
    except OSError as error:
        return None, f"{_CANNOT_OPEN} ({error.strerror or error})"
    return hashlib.blake2b(content, digest_size=20).hexdigest(), None


def _verdicts(paths: Sequence[Path], workers: int | None) -> Iterator[tuple[Path, Verdict]]:
    """In the order of `paths`. Threads suffice: reading, decoding and hashing all release the interpreter lock."""
    waiting = iter(paths)
    with progress_bar("Checking pictures", len(paths), "pictures") as bar, ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(waiting, _BATCH)):
            for path, verdict in zip(batch, pool.map(_judge, batch), strict=True):
                yield path, verdict
                bar.update()


def _load(cache_file: Path) -> dict[Stamp, Verdict]:
    """What earlier scans found. A missing, foreign or damaged file counts as none."""
    try:
        with open(cache_file, encoding="utf-8") as lines:
            if json.loads(next(lines)) != _HEADER:
                log.info("%s was written by another version; all pictures are checked again", cache_file)
                return {}
            rows = map(json.loads, lines)
            return {(path, size, time_ns): (digest, reason) for path, size, time_ns, digest, reason in rows}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, StopIteration) as error:
        log.warning("%s cannot be used (%s); all pictures are checked again", cache_file, error or "empty file")
        return {}


def _save(cache_file: Path | None, known: dict[Stamp, Verdict]) -> bool:
    """Write the cache, one JSON list a line; False, with one warning, where that is not possible."""
    if cache_file is None:
        return False
    rows = (json.dumps([*stamp, *verdict]) for stamp, verdict in known.items())
    try:
        with replacing(cache_file) as stream:
            stream.writelines(f"{line}\n" for line in (json.dumps(_HEADER), *rows))
    except OSError as error:
        log.warning("the result of this scan cannot be kept, the next one starts anew: %s", error)
        return False
    return True


def _list_bad(cache_file: Path | None, bad: dict[Path, str]) -> Path | None:
    if cache_file is None:
        return None
    bad_list = cache_file.with_suffix(".bad.txt")
    try:
        if not bad:
            bad_list.unlink(missing_ok=True)
            return None
        with replacing(bad_list) as stream:
            stream.writelines(f"{os.path.abspath(path)}\t{reason}\n" for path, reason in sorted(bad.items()))
    except OSError:  # a convenience; the short listing is still there
        return None
    return bad_list
