"""Samples that cannot be used: in the log, in a table beside the split file, or as an error."""

import logging
from collections.abc import Mapping
from pathlib import Path

from headstart.errors import UsageError
from headstart.files import write_table
from headstart.runs.directory import BAD_FILES

log = logging.getLogger(__name__)
CHOICES = ("leave_out", "error")
"""Values of `data.on_bad`."""
LISTED = 10


def describe(bad: Mapping[str, str], total: int, things: str, whole_list: Path | None = None) -> str:
    """Number of bad samples, and the first names with their reasons.

    Args:
        bad: name -> reason.
        total: number of all samples, the bad ones included.
        things: the word for samples, such as `rows`.
        whole_list: a file with all of them.
    """
    lines = [f"{len(bad)} of {total} {things} cannot be used:"]
    lines += [f"  {name}: {reason}" for name, reason in list(bad.items())[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"  ... and {len(bad) - LISTED} more")
    if whole_list:
        lines.append(f"All of them are listed in {whole_list}")
    return "\n".join(lines)


def refuse_or_warn(description: str, on_bad: str) -> None:
    """Raises a UsageError with the description for `on_bad=error`, else logs it."""
    if on_bad == "error":
        raise UsageError(f"{description}\nRemove them, or leave them out with data.on_bad=leave_out")
    log.warning("%s\nThey are left out.", description)


def write_list(split_file: Path | None, bad: Mapping[str, str]) -> None:
    """Writes the names and reasons beside the split file, if there is one. Every process writes the whole file."""
    if split_file:
        write_table(split_file.with_name(BAD_FILES), [("name", "reason"), *bad.items()])
