"""The samples that `input=` names: in files of their own, or several in one file or on standard input."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from headstart.errors import UsageError
from headstart.inference.file_names import STDIN, find_files
from headstart.inputs.base import Preprocess, Unlabelled
from headstart.inputs.folders import ARCHIVES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Samples, found one at a time during iteration.

    Attributes:
        samples: in a fixed order; at least one.
        total: number of samples; None if it is not known in advance.
    """

    samples: Iterator[Unlabelled]
    total: int | None


def find_samples(given: str | Sequence[str], preprocess: Preprocess, column: str | int | None = None) -> Found:
    """The samples that `input=<given>` names.

    Args:
        given: as for `find_files`. A file that is named itself may hold several samples; of the files that match a
            pattern, only tables do.
        preprocess: of the model.
        column: as for `Preprocess.samples_in`.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    if not isinstance(given, str):
        parts = [find_samples(each, preprocess, column) for each in given]
        totals = [part.total for part in parts]
        return Found(chain.from_iterable(part.samples for part in parts), None if None in totals else sum(totals))
    if given == STDIN:
        several = preprocess.samples_in(sys.stdin.buffer, column)
        if sys.stdin.isatty():
            content = "file names" if several is None else f"{preprocess.sample_name}s"
            log.info("reading %s from the keyboard, one per line; Ctrl-D ends them", content)
    else:
        path = os.path.expanduser(given)
        is_file = os.path.isfile(path) and not path.lower().endswith(ARCHIVES)
        several = preprocess.samples_in(path, column) if is_file else None
    if several is not None:
        first = next(several, None)  # so that a file that cannot be used is refused before a row is written
        if first is None:
            raise UsageError(f"input={given}: there is no {preprocess.sample_name} in it")
        return Found(chain([first], several), None)
    paths = find_files(given, preprocess.suffixes, preprocess.sample_name)
    if not preprocess.table_suffixes or given == STDIN or os.path.isdir(path):
        return Found(map(Unlabelled, paths.names), paths.total)
    names = list(paths.names)  # of a pattern; they are in memory already, because they are sorted
    tables = {name for name in names if name.lower().endswith(preprocess.table_suffixes)}
    parts = [find_samples(each, preprocess, column).samples if each in tables else [Unlabelled(each)] for each in names]
    return Found(chain.from_iterable(parts), None if tables else len(names))
