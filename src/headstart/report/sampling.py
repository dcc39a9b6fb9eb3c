"""Which samples of a large data set a report looks at."""

from typing import Any

import numpy as np

MEASURED = 1000
"""At most this number of samples, evenly spaced, are read to measure their sizes."""


def evenly(items: list[Any], number: int) -> list[Any]:
    """The given number of items, evenly spaced; all items if there are fewer."""
    if len(items) <= number:
        return items
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, number)]
