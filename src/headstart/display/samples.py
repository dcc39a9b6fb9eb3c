"""How samples are shown to people: the interface for all kinds of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from headstart.metrics.mistakes import Mistake
from headstart.metrics.number_predictions import NumberError


@dataclass(frozen=True)
class Entry:
    """One sample with a few words about it.

    Attributes:
        sample: a raw text, or a picture, uint8 `(3, height, width)`.
        lines: about the sample, each a few words.
        name: of the sample.
        is_mistake: whether it was predicted wrongly.
        explanation: of the prediction, as `evaluation.explanations` gives it; None: no explanation.
        explained: name of the class that the explanation is about.
    """

    sample: Any
    lines: Sequence[str]
    name: str = ""
    is_mistake: bool = False
    explanation: Any = None
    explained: str = ""


def mistake_entry(sample: Any, mistake: Mistake | NumberError, explanation: Any = None, explained: str = "") -> Entry:
    """A sample with the truth and the wrong answer; `explained`: as in `Entry`."""
    return Entry(sample, mistake.lines, mistake.path, True, explanation, explained)


class SampleView:
    """Shows samples of one kind. This one is for all kinds that nothing is known about: it shows nothing."""

    can_show = False
    parts = "parts"
    """The word for the parts of a sample that an explanation weights."""
    parts_note = ""
    """About the parts that an explanation leaves out."""
    column: ClassVar[str | None] = None
    """The name of a column with the samples themselves; None: the cells of a table cannot hold them."""

    def write(self, file: Path, groups: Sequence[Sequence[Entry]], title: str) -> None:
        """Writes a figure or a page with samples.

        Args:
            file: without a suffix.
            groups: entries that belong together, such as a mistake and its neighbours.
            title: of the figure or page.
        """

    def add_to(self, writer: Any, tag: str, entries: Sequence[Entry], title: str, step: int) -> None:
        """Shows samples in TensorBoard."""

    def explanation_rows(self, entries: Sequence[Entry]) -> list[list[str]] | None:
        """The explanations as a table with a header; None: a table does not suit them."""
        return None
