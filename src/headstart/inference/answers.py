"""The answers for a sample in rows and on the web page: its most probable classes, or its numbers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from headstart.inference.classifier import Classifier

DIGITS = 6
"""Significant digits of a probability."""
NUMBER_DIGITS = 7
"""Significant digits of a number, as many as single precision has."""
Pairs = Sequence[tuple[str, float]]
"""Names and their probabilities or numbers."""


class Answers(ABC):
    """One kind of answer.

    Args:
        names: of the classes or numbers, in the order of the network's outputs.
    """

    key: str
    """The field of all names on the web page."""
    digits: int
    """Significant digits of a number in a table."""
    in_summary: int | None = None
    """Number of pairs in a summary of a few words; None: all."""

    def __init__(self, names: list[str]):
        self.names = names

    @abstractmethod
    def of(self, batch: Tensor) -> list[Pairs]:
        """The pairs of each sample, from the answers of the network `(batch, outputs)`."""

    @abstractmethod
    def columns(self) -> list[str]:
        """The columns of a table."""

    @abstractmethod
    def values(self, pairs: Pairs) -> list[str | float]:
        """The values of a sample in these columns."""

    def cells(self, pairs: Pairs) -> list[str]:
        """The same as texts, with `digits` significant digits."""
        return [value if isinstance(value, str) else f"{value:.{self.digits}g}" for value in self.values(pairs)]

    @abstractmethod
    def plain(self, pairs: Pairs) -> dict[str, Any]:
        """A sample as a field of a JSON object; empty pairs: it could not be read."""

    @abstractmethod
    def served(self, pairs: Pairs) -> dict[str, Any]:
        """A sample as a field of the answer of the web application."""

    def first_output(self, answer: Tensor) -> int:
        """The output that an explanation is about, given the answer `(outputs,)`."""
        return int(answer.argmax())


class RankedClasses(Answers):
    """The most probable classes with their probabilities.

    Args:
        names: of the classes.
        top_k: number of classes in an answer.
    """

    key = "classes"
    digits = DIGITS
    in_summary = 1

    def __init__(self, names: list[str], top_k: int):
        super().__init__(names)
        self.top_k = top_k

    def of(self, batch: Tensor) -> list[Pairs]:
        """The pairs, the most probable class first."""
        if not len(batch):
            return []
        values, places = batch.topk(self.top_k)
        pairs = zip(values.tolist(), places.tolist(), strict=True)
        return [[(self.names[place], value) for value, place in zip(*each, strict=True)] for each in pairs]

    def columns(self) -> list[str]:
        """`class_1,probability_1,...`."""
        return [f"{name}_{rank}" for rank in range(1, self.top_k + 1) for name in ("class", "probability")]

    def values(self, pairs: Pairs) -> list[str | float]:
        """Names and probabilities in turn."""
        return [value for pair in pairs for value in pair]

    def plain(self, pairs: Pairs) -> dict[str, Any]:
        """`predictions`: a list, the most probable class first."""
        return {"predictions": [{"class": name, "probability": float(f"{p:.{DIGITS}g}")} for name, p in pairs]}

    def served(self, pairs: Pairs) -> dict[str, Any]:
        """`classes`: the same list."""
        return {"classes": [{"class": name, "probability": round(p, 6)} for name, p in pairs]}


class NamedNumbers(Answers):
    """All numbers of a sample."""

    key = "numbers"
    digits = NUMBER_DIGITS

    def of(self, batch: Tensor) -> list[Pairs]:
        """The pairs, in the order of the names."""
        return [list(zip(self.names, row, strict=True)) for row in batch.tolist()]

    def columns(self) -> list[str]:
        """The names."""
        return list(self.names)

    def values(self, pairs: Pairs) -> list[str | float]:
        """The numbers."""
        return [number for _, number in pairs]

    def plain(self, pairs: Pairs) -> dict[str, Any]:
        """`numbers`: name -> number; empty if the sample could not be read."""
        return {"numbers": {name: float(f"{number:.{NUMBER_DIGITS}g}") for name, number in pairs}}

    def served(self, pairs: Pairs) -> dict[str, Any]:
        """`numbers`: a list in the order of the names."""
        return {"numbers": [{"number": name, "value": float(f"{number:.{NUMBER_DIGITS}g}")} for name, number in pairs]}

    def first_output(self, answer: Tensor) -> int:
        """The first number; 1 for a single one, because explanations take 0 for its negative."""
        return 0 if len(answer) > 1 else 1


def answers_of(classifier: Classifier, names: list[str], top_k: int) -> Answers:
    """The kind of answer of a model.

    Args:
        classifier: the model.
        names: of its classes or numbers.
        top_k: number of classes in an answer, at most all.
    """
    return NamedNumbers(names) if classifier.objective.numbers else RankedClasses(names, min(top_k, len(names)))
