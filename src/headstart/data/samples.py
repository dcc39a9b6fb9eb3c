"""Labelled samples before any transform; several sets of them are joined into one pool with one class map."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from headstart.errors import UsageError, listed, nearest

LEAST_SPREAD = 1e-5
"""Range of a number relative to its size: with less, single precision would lose most of its digits."""
Loader = Callable[[int], Any]
"""Index -> raw sample."""


@dataclass
class Samples:
    """The samples of a data set before transforms.

    Attributes:
        names: a stable, unique name per sample (a path relative to the root); the split file uses it.
        targets: a class index per sample; for multi-label data a list of `len(classes)` zeros and ones; for `numbers` a
            list of `len(classes)` finite floats.
        classes: class names; `targets` index into them. Samples without labels have no classes, and each target is an
            empty list. For `numbers` the names of the numbers.
        load: index -> raw sample, for pictures a uint8 RGB tensor `(3, height, width)`. Must be picklable.
        digests: a hash of each sample's content, to find the same sample in two splits; None if not known.
        copies_together: whether samples with the same content stay together when splits are cut.
        groups: the group of each sample, such as a patient: all its samples stay together when splits are cut. None:
            there are no groups.
        numbers: whether the targets are numbers instead of classes.
    """

    names: Sequence[str]
    targets: Sequence[Any]
    classes: list[str]
    load: Loader
    digests: Sequence[str] | None = None
    copies_together: bool = False
    groups: Sequence[str] | None = None
    numbers: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have any number of labels instead of one class."""
        return len(self) > 0 and not self.numbers and not isinstance(self.targets[0], Integral)

    def classes_of(self, index: int) -> list[int]:
        """The class indices of a sample: one, for multi-label data any number; none if the targets are numbers."""
        target = self.targets[index]
        if self.numbers:
            return []
        return [target] if isinstance(target, Integral) else [i for i, on in enumerate(target) if on]

    def label_of(self, index: int) -> str:
        """The label of a sample in words: its class, its labels or its numbers, joined by `|`."""
        if self.numbers:
            return "|".join(f"{value:.7g}" for value in self.targets[index])
        return "|".join(self.classes[c] for c in self.classes_of(index))


@dataclass
class _Chained:
    """Loads samples from several data sets as one."""

    parts: list[Loader]
    starts: list[int]  # the index at which each part begins

    def __call__(self, index: int) -> Any:
        part, place = self.part_of(index)
        return part(place)

    def part_of(self, index: int) -> tuple[Loader, int]:
        part = bisect_right(self.starts, index) - 1
        return self.parts[part], index - self.starts[part]


def loaders(load: Loader) -> list[Loader]:
    """The loader of each data set in a pool."""
    return load.parts if isinstance(load, _Chained) else [load]


def loader_of(load: Loader, index: int) -> tuple[Loader, int]:
    """The loader of the data set that a sample of a pool comes from, and the sample's index there."""
    return load.part_of(index) if isinstance(load, _Chained) else (load, index)


def with_loaders(load: Loader, change: Callable[[Loader], Loader]) -> Loader:
    """The loader of a pool, with `change` applied to the loader of each data set."""
    return _Chained(list(map(change, load.parts)), load.starts) if isinstance(load, _Chained) else change(load)


def pool(parts: dict[str, Samples], known_classes: list[str] | None = None) -> tuple[Samples, dict[str, list[int]]]:
    """Joins the splits of a data set into one pool with one class map; classes are matched by name.

    Args:
        parts: split name -> its samples; `train` defines the classes if `known_classes` is None.
        known_classes: the class map of an existing model.

    Returns:
        the pool, and for each split the indices of its samples in the pool.

    Raises:
        UsageError: a split has a class that is not in the class map; or, for a new model, there is no `train`, only one
            class, or a class without a training sample.
        ValueError: a mistake in the code of the data set: two samples have the same name, or a target is not allowed.
    """
    if not parts:
        raise UsageError("the data set is empty: none of train, val, test was found")
    if known_classes is None and "train" not in parts:
        raise UsageError(f"there is no train split, only {', '.join(parts)}: a model cannot be trained without it")
    classes = list(known_classes or parts["train"].classes)
    names: list[str] = []
    targets: list[Any] = []
    digests: list[str] = []
    groups: list[str] = []
    starts: list[int] = []
    origin: dict[str, list[int]] = {}
    for split, samples in parts.items():
        _check_targets(split, samples)
        starts.append(len(names))
        origin[split] = list(range(len(names), len(names) + len(samples)))
        names += samples.names
        targets += _translate(split, samples, classes, "train" if known_classes is None else "the model")
        digests += samples.digests or []
        groups += samples.groups or []
    if len(set(names)) < len(names):
        raise ValueError("two samples have the same name: a data set must name every sample of all splits differently")
    load = _Chained([samples.load for samples in parts.values()], starts)
    together = any(samples.copies_together for samples in parts.values())
    known_digests = digests if len(digests) == len(names) else None
    numbers = any(samples.numbers for samples in parts.values())
    joined = Samples(names, targets, classes, load, known_digests, together, groups or None, numbers)
    if joined.multi_label and (mixed := [name for name in classes if "|" in name]):
        raise UsageError(f"the label {mixed[0]!r} has a '|', which separates several labels in tables: rename it")
    if known_classes is None:
        _check_classes(joined, origin["train"])
    return joined, origin


def _check_targets(split: str, samples: Samples) -> None:
    """Raises a ValueError if a target is no class index, no row of zeros and ones, or no row of finite numbers."""
    n = len(samples.classes)
    if samples.numbers:
        _check_numbers(split, samples)
        return
    is_allowed = _is_row if samples.multi_label else _is_index
    for name, target in zip(samples.names, samples.targets, strict=True):
        if not is_allowed(target, n):
            raise ValueError(
                f"the target of {name!r} in {split} is {str(target)[:100]}: a data set must give a class index from 0 "
                f"to {n - 1}, or for several labels per sample a list of {n} zeros and ones"
            )


def _check_numbers(split: str, samples: Samples) -> None:
    for name, target in zip(samples.names, samples.targets, strict=True):
        if len(target) != len(samples.classes) or not all(math.isfinite(value) for value in target):
            raise ValueError(
                f"the target of {name!r} in {split} is {str(target)[:100]}: a data set must give a list of "
                f"{len(samples.classes)} finite numbers"
            )


def _is_index(target: Any, num_classes: int) -> bool:
    return isinstance(target, Integral) and 0 <= target < num_classes


def _is_row(target: Any, num_classes: int) -> bool:
    try:
        return len(target) == num_classes and set(target) <= {0, 1}
    except TypeError:  # no list, such as a float
        return False


def _translate(split: str, samples: Samples, classes: list[str], owner: str) -> list[Any]:
    """The targets of one split as indices into the common class map, which comes from `owner`."""
    if list(samples.classes) == classes:
        return list(samples.targets)
    if samples.numbers:
        return _reordered(split, samples, classes, owner)
    position = {name: i for i, name in enumerate(classes)}
    used = {c for index in range(len(samples)) for c in samples.classes_of(index)}
    unknown = [samples.classes[c] for c in sorted(used) if samples.classes[c] not in position]
    if unknown:
        raise UsageError(
            f"{split} has the class {unknown[0]!r}, which {owner} does not have{nearest(unknown[0], classes) or '.'} "
            f"The classes of {owner} are {listed(classes)}. Rename or remove {unknown[0]!r} in {split}"
            f"{', or add it to train' if owner == 'train' else ''}."
        )
    moved = [position.get(name) for name in samples.classes]
    if not samples.multi_label:
        return [moved[target] for target in samples.targets]
    translated = []
    for index in range(len(samples)):
        row = [0] * len(classes)
        for c in samples.classes_of(index):
            row[moved[c]] = 1
        translated.append(row)
    return translated


def _reordered(split: str, samples: Samples, classes: list[str], owner: str) -> list[list[float]]:
    """The numbers of each sample in the order of `classes`; a single number may have another name."""
    if len(classes) == len(samples.classes) == 1:
        return list(samples.targets)
    if missing := [name for name in classes if name not in samples.classes]:
        raise UsageError(
            f"{split} has no number {missing[0]!r}, which {owner} has{nearest(missing[0], samples.classes) or '.'} "
            f"The numbers of {split} are {listed(samples.classes)}: rename the column"
        )
    places = [list(samples.classes).index(name) for name in classes]
    return [[target[place] for place in places] for target in samples.targets]


def _check_classes(samples: Samples, train: list[int]) -> None:
    """Raises a UsageError if a class has no training sample, or if there is only one class; none is allowed.

    Numbers may not be the same in all training samples.
    """
    if samples.numbers:
        _check_variety(samples, train)
        return
    present = {c for index in train for c in samples.classes_of(index)}
    empty = [name for i, name in enumerate(samples.classes) if i not in present]
    if empty:
        raise UsageError(
            f"no readable training sample of class {listed(empty)}: add some, or remove the class "
            "(delete the folder if it is empty)"
        )
    if len(samples.classes) == 1:
        raise UsageError(f"there is only one class, {samples.classes[0]!r}: a classifier needs at least two")


def _check_variety(samples: Samples, train: list[int]) -> None:
    """Raises a UsageError if a number has (nearly) the same value in all training samples."""
    for place, name in enumerate(samples.classes):
        values = [samples.targets[index][place] for index in train]
        if 0 < max(values) - min(values) < LEAST_SPREAD * max(map(abs, values)):
            raise UsageError(
                f"the number {name!r} lies between {min(values)!r} and {max(values)!r}, too close together for single "
                "precision: subtract a constant from the column, such as the lowest value"
            )
        if len(set(values)) < 2:
            raise UsageError(
                f"the number {name!r} has the same value in all {len(train)} training samples, so nothing can be "
                "learned about it: leave it out"
            )
