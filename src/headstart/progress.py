"""The progress bar of everything that takes long, and how to write above the bars."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

DELAY_SECONDS = 1.0
"""Work that is done earlier shows no bar."""
ERASE_LINE = "\r\x1b[2K"
"""Empties the line of the cursor: https://vt100.net/docs/vt510-rm/EL.html."""


class Bar(tqdm):
    """A bar of tqdm that leaves no trace when it is closed, also if a message was written above it.

    tqdm draws a bar again below a message, even before its delay is over, and does not erase such a bar.
    """

    is_drawn = False

    def refresh(self, *arguments: object, **options: object) -> bool | None:
        """Draws the bar once its delay is over."""
        if self.delay and self._time() < self.start_t + self.delay:
            return None
        self.is_drawn = True
        return super().refresh(*arguments, **options)

    @staticmethod
    def format_meter(*arguments: object, **options: object) -> str:
        """The text of the bar; tqdm writes `3.71s/ batches`, because our units begin with a space."""
        return tqdm.format_meter(*arguments, **options).replace("s/ ", " s/")

    def close(self) -> None:
        """Erases the bar."""
        if self.is_drawn:  # tqdm erases what was drawn at `last_print_t`, if that is later than the delay
            self.last_print_t = max(self.last_print_t, self.start_t + self.delay)
        super().close()
        if self.is_drawn:  # tqdm goes back to the line of the bar above, but not to its beginning
            self.fp.write("\r")


def progress_bar(title: str, total: int | None, unit: str, *, initial: int = 0, hidden: bool = False) -> tqdm:
    """A bar on stderr with the count, the speed and the time left; it is erased when it is closed.

    It is shown only in a terminal, and only by the first process of a run. Use it in a `with` statement and call
    `update(number)`.

    Args:
        title: text at the left.
        total: number of items; None if unknown: then only count and speed are shown.
        unit: what is counted, such as `pictures`; `B` for bytes, which are shown as kB, MB and GB.
        initial: items done earlier; not part of the speed.
        hidden: whether the bar is never shown.
    """
    # imported here, because messages are written before Lightning is loaded
    from pytorch_lightning.utilities import rank_zero_only

    is_bytes = unit == "B"
    return Bar(
        desc=title,
        total=total,
        initial=initial,
        unit=unit if is_bytes else f" {unit}",
        unit_scale=is_bytes,
        delay=DELAY_SECONDS,
        leave=False,
        dynamic_ncols=True,
        disable=True if hidden or rank_zero_only.rank != 0 else None,  # None: shown in a terminal only
    )


@contextmanager
def above_bars() -> Iterator[None]:
    """What is written to stdout or stderr inside begins on an empty line; the bars that are shown move below it."""
    with tqdm.external_write_mode(file=sys.stderr):
        # a signal may have come while a bar was being drawn: then tqdm does not know yet what it has to erase
        if sys.stderr.isatty() and len(getattr(tqdm, "_instances", ())):
            sys.stderr.write(ERASE_LINE)
        yield
