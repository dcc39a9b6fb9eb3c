"""Whether an export gives what its checkpoint gives, and how fast."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]
"""uint8 pictures `(batch, 3, height, width)` -> probabilities `(batch, num_classes)`."""
SECONDS = 3.0  # for each of the two kinds of timing
LEAST_RUNS = 5


@dataclass(frozen=True)
class Parity:
    """Two answers to the same pictures.

    Attributes:
        largest: the largest difference between two probabilities; NaN if there is one among them.
        agreement: share of the pictures for which both decide alike.
        pictures: how many.
        accuracy: of `checkpoint` and `export`, or None without labels. Of several labels each counts.
    """

    largest: float
    agreement: float
    pictures: int
    accuracy: dict[str, float] | None


@torch.inference_mode()
def compare(reference: Run, exported: Run, pictures: Iterable[Tensor], targets: Tensor | None, several: bool) -> Parity:
    """Runs both on each picture, and the export also on batches of each picture and its mirror image.

    Args:
        reference: the checkpoint's own network.
        exported: what was read back from the file.
        pictures: as they come from the decoder, uint8 `(3, height, width)`.
        targets: class indices `(n,)`, or zeros and ones `(n, num_classes)`.
        several: whether a picture may have several labels.
    """
    pairs = []
    batched = 0.0
    for picture in pictures:
        pair = torch.stack([picture, picture.flip(2)])
        pairs.append((reference(pair[:1])[0], exported(pair[:1])[0]))
        apart = torch.cat([reference(pair[:1]), reference(pair[1:])])
        batched = max(batched, _largest(apart, exported(pair)), key=_nan_last)
    ours, theirs = (torch.stack(side) for side in zip(*pairs, strict=True))
    decided = decide(ours, several), decide(theirs, several)
    same = decided[0] == decided[1]
    agreement = (same.all(dim=1) if several else same).float().mean().item()
    accuracy = None
    if targets is not None:
        values = ((side == targets).float().mean().item() for side in decided)
        accuracy = dict(zip(("checkpoint", "export"), values, strict=True))
    return Parity(max(_largest(ours, theirs), batched, key=_nan_last), agreement, len(pairs), accuracy)


def decide(probabilities: Tensor, several: bool) -> Tensor:
    """What probabilities `(n, num_classes)` decide for: a class `(n,)`, or zeros and ones `(n, num_classes)`."""
    return (probabilities > 0.5).long() if several else probabilities.argmax(dim=1)


def _largest(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def _nan_last(value: float) -> float:
    return value if value == value else float("inf")


@torch.inference_mode()
def seconds(runs: dict[str, Run], pictures: Tensor) -> dict[str, float]:
    """The median time of each for this batch, taken in turns, so that other work slows all alike."""
    for run in runs.values():  # the first run prepares what the others find
        run(pictures)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or min(map(len, taken.values())) < LEAST_RUNS:
        for name, run in runs.items():
            start = time.perf_counter()
            run(pictures)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}
