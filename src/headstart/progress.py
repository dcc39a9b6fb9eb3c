"""The progress bar of everything that takes long. It is tqdm's, as is the bar of Lightning's training loop."""

from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

DELAY_SECONDS = 1.0
"""Work that is done earlier shows no bar."""


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
    is_bytes = unit == "B"
    return tqdm(
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
