"""Tables as CSV files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from headstart.files import replacing


def write_table(file: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes the rows, the names of the columns first; complete or not at all."""
    with replacing(file) as stream:
        csv.writer(stream).writerows(rows)
