"""Compares predictions and speed of an export and of its checkpoint."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart.metrics.numbers import R2
from headstart.metrics.thresholds import present

Answer = Callable[[list[Any]], Tensor]
"""Raw samples -> probabilities `(samples, num_classes)`, or numbers."""
SECONDS = 3.0  # for each of the two batch sizes
LEAST_RUNS = 5
SIDES = ("checkpoint", "export")


@dataclass(frozen=True)
class Parity:
    """How close the predictions of checkpoint and export are on the same samples.

    Attributes:
        largest: largest difference between two probabilities, or between two numbers in standard deviations of the
            number in training; NaN if one is NaN.
        agreement: share of samples with the same predicted classes; None for numbers.
        samples: number of compared samples.
        accuracy: of `checkpoint` and `export`; None without labels. With several labels, each label counts.
        r2: the same for numbers.
    """

    largest: float
    agreement: float | None
    samples: int
    accuracy: dict[str, float] | None
    r2: dict[str, float] | None = None

    @property
    def answers(self) -> str:
        """The word for the compared answers."""
        return "numbers" if self.agreement is None else "probabilities"


@torch.inference_mode()
def compare(
    reference: Answer, exported: Answer, samples: Iterable[Any], companion: Callable[[Any], Any],
    targets: Tensor | None, multi_label: bool, thresholds: Sequence[float] | None = None, sizes: Tensor | None = None,
) -> Parity:  # fmt: skip
    """Runs both networks on each sample, and the export also on batches of two.

    Args:
        reference: the network of the checkpoint.
        exported: the network that was loaded from the file.
        samples: raw, as the data set loads them.
        companion: a sample -> another one that fits into one batch with it.
        targets: class indices `(n,)`, zeros and ones `(n, num_classes)`, or numbers `(n, numbers)`.
        multi_label: whether a sample may have several labels.
        thresholds: of the labels; None: 0.5.
        sizes: standard deviation of each number in training `(numbers,)`; None: the answers are probabilities.
    """
    unit = 1 if sizes is None else sizes
    pairs = []
    batched = 0.0
    for sample in samples:
        two = [sample, companion(sample)]
        pairs.append((reference(two[:1])[0], exported(two[:1])[0]))
        separate = torch.cat([reference(two[:1]), reference(two[1:])])
        batched = max(batched, _largest(separate / unit, exported(two) / unit), key=_nan_last)
    ours, theirs = (torch.stack(side) for side in zip(*pairs, strict=True))
    largest = max(_largest(ours / unit, theirs / unit), batched, key=_nan_last)
    if sizes is not None:
        scores = None if targets is None else {n: _r2(s, targets) for n, s in zip(SIDES, (ours, theirs), strict=True)}
        return Parity(largest, None, len(pairs), None, scores)
    decided = decide(ours, multi_label, thresholds), decide(theirs, multi_label, thresholds)
    same = decided[0] == decided[1]
    agreement = (same.all(dim=1) if multi_label else same).float().mean().item()
    accuracy = None
    if targets is not None:
        values = ((side == targets).float().mean().item() for side in decided)
        accuracy = dict(zip(SIDES, values, strict=True))
    return Parity(largest, agreement, len(pairs), accuracy)


def _r2(numbers: Tensor, targets: Tensor) -> float:
    metric = R2(targets.shape[1])
    metric.update(numbers, targets)
    return metric.compute().item()


def decide(probabilities: Tensor, multi_label: bool, thresholds: Sequence[float] | None = None) -> Tensor:
    """Probabilities `(n, num_classes)` -> predicted classes `(n,)`, or zeros and ones `(n, num_classes)`."""
    if not multi_label:
        return probabilities.argmax(dim=1)
    return present(probabilities, thresholds).long()


def _largest(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def _nan_last(value: float) -> float:
    return value if value == value else float("inf")


@torch.inference_mode()
def seconds(answers: dict[str, Answer], samples: list[Any]) -> dict[str, float]:
    """The median time of each network, measured in turns, so that other work on the machine slows all equally."""
    for answer in answers.values():  # the first call is slower and is not measured
        answer(samples)
    taken: dict[str, list[float]] = {name: [] for name in answers}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or min(map(len, taken.values())) < LEAST_RUNS:
        for name, answer in answers.items():
            start = time.perf_counter()
            answer(samples)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}
