"""Finds unreadable pictures and duplicate files before training starts."""

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

from headstart.errors import counted
from headstart.files import replacing
from headstart.inputs.base import UnreadableInput
from headstart.inputs.images.decode import HEIC_VERSION, largest_grey
from headstart.inputs.opening import open_file
from headstart.progress import progress_bar

log = logging.getLogger(__name__)

_BATCH = 1024  # files that the threads get at a time; limits the memory for waiting files
GREY_BITS = (8, 10, 12, 14, 16)
"""Numbers of bits that cameras and scanners store in pictures of 16-bit grey."""
_CANNOT_OPEN = ("cannot be opened", "cannot be read")
# another version of a decoder may accept other files
_HEADER = {"headstart_scan": 3, "pillow": PIL.__version__, "pillow_heif": HEIC_VERSION}

Stamp = tuple[str, int, int, int, int]
"""Absolute path, size in bytes, times of modification and of the last change of any kind in ns, number of the file.

If all are the same, the file counts as unchanged. Programs can set the time of modification, but not that of change.
"""

Verdict = tuple[str | None, str | None, int | None]
"""(digest, None, largest value of 16-bit grey or None) of a readable picture; (None, reason, None) of any other."""


@dataclass(frozen=True)
class ScanResult:
    """The result of a scan. Both dicts have the scanned paths as keys, in the given order."""

    bad: dict[Path, str] = field(default_factory=dict)
    """Unreadable picture -> reason."""
    digests: dict[Path, str] = field(default_factory=dict)
    """Readable picture -> BLAKE2b hash of its bytes, 40 hex digits: files with equal digests are equal."""
    grey_bits: int | None = None
    """Bits that the readable pictures of 16-bit grey use; None if there are none."""
    bad_list: Path | None = None
    """Text file that lists all unreadable pictures, one line `path<tab>reason` each; None if there is no such file."""


def scan_pictures(paths: Sequence[Path], cache_file: Path | None = None, workers: int | None = None) -> ScanResult:
    """Decodes and hashes every file once; the results of files that did not change are read from `cache_file`.

    The result depends neither on the number of threads (`workers`; None: Python's default) nor on the cache. All
    unreadable pictures are listed in `<stem>.bad.txt` next to the cache file. An unreadable file raises no error.
    """
    stamps = {path: _stamp(path) for path in paths}
    known = _load(cache_file) if cache_file else {}
    pending = [path for path, stamp in stamps.items() if stamp not in known]
    fresh: dict[Path, Verdict] = {}
    try:
        for path, verdict in _verdicts(pending, workers):
            fresh[path] = verdict
    finally:  # an interrupted scan saves its results so far
        keep = {stamps[path]: verdict for path, verdict in fresh.items() if _is_lasting(verdict)}
        is_saved = not keep or _save(cache_file, known | keep)
    verdicts = {path: fresh[path] if path in fresh else known[stamp] for path, stamp in stamps.items()}
    bad = {path: reason for path, (_, reason, _) in verdicts.items() if reason is not None}
    digests = {path: digest for path, (digest, _, _) in verdicts.items() if digest is not None}
    greys = [value for _, _, value in verdicts.values() if value is not None]
    bits = next(bits for bits in GREY_BITS if max(greys) < 2**bits) if greys else None
    return ScanResult(bad, digests, bits, _list_bad(cache_file, bad) if is_saved else None)


def results_file(cache: Path | None, place: Path) -> Path | None:
    """The file in the folder `cache` for the results of the pictures of a folder or table; None without a cache."""
    if cache is None:
        return None
    return cache / "scans" / f"{hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:16]}.jsonl"


def _stamp(path: Path) -> Stamp | None:
    """None if the state of the file cannot be read; then its result is not cached."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_lasting(verdict: Verdict) -> bool:
    """Whether it can be cached. A file that could not be opened is not cached: it may be readable next time."""
    return not (verdict[1] or "").startswith(_CANNOT_OPEN)


def _judge(path: Path) -> Verdict:
    """Reads, decodes and hashes one file."""
    try:
        with open_file(path) as stream:
            content = stream.read()
        grey = largest_grey(io.BytesIO(content))
    except UnreadableInput as error:
        return None, error.reason, None
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})", None
    return hashlib.blake2b(content, digest_size=20).hexdigest(), None, grey


def _verdicts(paths: Sequence[Path], workers: int | None) -> Iterator[tuple[Path, Verdict]]:
    """In the order of `paths`. Threads are enough: reading, decoding and hashing release the interpreter lock."""
    if paths:
        log.info("checking %s", counted(len(paths), "picture"))
    waiting = iter(paths)
    with progress_bar("checking pictures", len(paths), "pictures") as bar, ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(waiting, _BATCH)):
            for path, verdict in zip(batch, pool.map(_judge, batch), strict=True):
                yield path, verdict
                bar.update()


def _load(cache_file: Path) -> dict[Stamp, Verdict]:
    """The results of earlier scans; none if the file is missing, damaged or of another version."""
    try:
        with open(cache_file, encoding="utf-8") as lines:
            if json.loads(next(lines)) != _HEADER:
                log.info("%s was written by another version; all pictures are checked again", cache_file)
                return {}
            rows = map(json.loads, lines)
            return {(path, *numbers): (digest, reason, grey) for path, *numbers, digest, reason, grey in rows}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, StopIteration) as error:
        log.warning("%s cannot be used (%s); all pictures are checked again", cache_file, error or "empty file")
        return {}


def _save(cache_file: Path | None, known: dict[Stamp, Verdict]) -> bool:
    """Writes the cache, one JSON list per line; if that fails, warns and returns False."""
    if cache_file is None:
        return False
    rows = (json.dumps([*stamp, *verdict]) for stamp, verdict in known.items())
    try:
        with replacing(cache_file) as stream:
            stream.writelines(f"{line}\n" for line in (json.dumps(_HEADER), *rows))
    except OSError as error:
        log.warning("the results of this scan cannot be saved, so the next scan starts from the beginning: %s", error)
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
    except OSError:  # the list is optional; the log has a short one
        return None
    return bad_list
