"""Assigns samples to splits: seeded and stratified.

Numbers are stratified by the first one, in parts of equal size: else a small split might lack low or high values.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from headstart.data.samples import Samples
from headstart.errors import UsageError, counted

SPLITS = ("train", "val", "test")
FEW = 10
"""Samples that a combination of labels needs, to be stratified by itself."""
Strata = dict[tuple[int, ...], list[int]]
"""Class, or combination of labels -> indices of its samples."""
MOST_PARTS, FEWEST_IN_PART = 10, 20
"""Numbers are stratified in at most this number of parts, each with at least this number of samples."""


@dataclass(frozen=True)
class SplitPlan:
    """How to make the splits that the data set does not have; the fields are arguments of `DataModule`.

    Raises:
        UsageError: a value out of range, or two that contradict each other.
    """

    val_fraction: float
    test_fraction: float
    train_fraction: float
    shots_per_class: int | None
    fold: int | None
    num_folds: int | None
    seed: int

    def __post_init__(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"data.{name}={getattr(self, name)}: give a share from 0 to below 1, e.g. 0.15")
        if self.val_fraction + self.test_fraction >= 1:
            raise UsageError(
                f"data.val_fraction={self.val_fraction} data.test_fraction={self.test_fraction}: nothing is left to "
                "train on; give shares that add up to less than 1"
            )
        if not 0 < self.train_fraction <= 1:
            raise UsageError(f"data.train_fraction={self.train_fraction}: give a share above 0 and up to 1, e.g. 0.1")
        if self.shots_per_class is not None and self.shots_per_class < 1:
            raise UsageError(f"data.shots_per_class={self.shots_per_class}: give a whole number of at least 1")
        if self.shots_per_class is not None and self.train_fraction < 1:
            raise UsageError(
                f"data.shots_per_class={self.shots_per_class} and data.train_fraction={self.train_fraction} "
                "both choose the training samples: give one, and "
                "data.shots_per_class=null or data.train_fraction=1 for the other"
            )
        if (self.fold is None) != (self.num_folds is None):
            raise UsageError("cross-validation needs both, for example data.num_folds=5 data.fold=0")
        if self.num_folds is not None and not (self.num_folds >= 2 and 0 <= self.fold < self.num_folds):
            raise UsageError(
                f"data.fold={self.fold} data.num_folds={self.num_folds}: "
                "give num_folds of at least 2 and fold from 0 to num_folds - 1"
            )
        if self.seed < 0:
            raise UsageError(f"data.seed={self.seed}: give a whole number of at least 0")

    def assign(self, samples: Samples, origin: dict[str, list[int]]) -> dict[str, list[int]]:
        """Indices of `train`, `val` and `test`. The splits that the data set has stay as they are.

        Args:
            samples: the pool.
            origin: split -> indices, for every split that the data set has.

        Raises:
            UsageError: there are too few samples for these settings.
        """
        by_name = samples.names.__getitem__  # sorted by name, so that the order of the files does not matter
        train, val, test = (sorted(origin.get(split, []), key=by_name) for split in SPLITS)
        left = 1.0
        if train and "test" not in origin and self.test_fraction:
            train, test = self._cut(samples, train, self.test_fraction, "test")
            left -= self.test_fraction
        if self.num_folds is not None:
            train, val = self._fold(samples, sorted(train + val, key=by_name))
        elif train and "val" not in origin and self.val_fraction:
            # val_fraction is a share of the data set's own train, before test was cut from it
            train, val = self._cut(samples, train, self.val_fraction / left, "val")
        return {"train": self._subset(samples, train), "val": val, "test": test}

    def _cut(self, samples: Samples, indices: list[int], share: float, name: str) -> tuple[list[int], list[int]]:
        """The indices that stay and the ones that are cut off.

        At least one sample of each class is cut off, but never its last. With groups, a class may have none.
        """
        found = counted(len(indices), "training sample")
        if samples.groups is not None:
            cut = _cut_groups(self._strata(samples, indices), samples, share)
            if not cut:
                raise UsageError(
                    f"cannot cut a {name} split from {found}: the groups of data.group_by are too few or too large. "
                    f"Give data.{name}_fraction=0, or a {name} split of your own"
                )
            return _parted(indices, cut)
        strata = _distinct(self._strata(samples, indices), samples)
        cut = _with_copies(_take(strata, share, leave=1), indices, samples)
        if not cut:
            if samples.numbers or len(strata) < 2:  # no classes, or one
                none = "at least two must differ" if samples.copies_together else "at least two are needed"
            else:
                found += f" of {len(strata)} classes"
                none = "no class has two that differ" if samples.copies_together else "no class has two"
            own = f" or a {name} split of your own" if samples.classes else ""
            raise UsageError(
                f"cannot cut a {name} split from {found}: {none}. Add samples{own}, or give data.{name}_fraction=0"
            )
        return _parted(indices, cut)

    def _fold(self, samples: Samples, indices: list[int]) -> tuple[list[int], list[int]]:
        """The other folds together, and fold `self.fold`: each class is shuffled, then dealt to the folds in turn."""
        fewest = len(indices) if samples.numbers else min(_frequency(samples, indices).values(), default=0)
        if fewest < self.num_folds and samples.numbers:
            raise UsageError(f"data.num_folds={self.num_folds}: there are only {fewest} samples; give at most as many")
        if fewest < self.num_folds:
            raise UsageError(
                f"data.num_folds={self.num_folds}: the smallest class has only {fewest} samples; "
                "give at most as many folds"
            )
        if samples.groups is not None:
            return _parted(indices, self._fold_of_groups(samples, indices))
        strata = _distinct(self._strata(samples, indices), samples)
        dealt = [index for members in strata.values() for index in members]
        return _parted(indices, _with_copies(set(dealt[self.fold :: self.num_folds]), indices, samples))

    def _fold_of_groups(self, samples: Samples, indices: list[int]) -> set[int]:
        """Fold `self.fold`: each group is dealt to the fold that lacks its samples most, large groups first.

        A group that holds all samples of a class is in no fold.
        """
        strata = self._strata(samples, indices)
        sizes = np.array([len(each) for each in strata.values()])
        groups = [each for each in _groups(strata, samples) if (each.numbers < sizes[each.rows]).all()]
        if len(groups) < self.num_folds:
            raise UsageError(
                f"data.num_folds={self.num_folds}: only {len(groups)} groups of data.group_by can be left out of the "
                "training without a class losing all samples; give at most as many folds"
            )
        folds: list[set[int]] = [set() for _ in range(self.num_folds)]
        have = np.zeros((self.num_folds, len(strata)))
        for group in groups:
            before = have[:, group.rows] - sizes[group.rows] / self.num_folds
            after = before + group.numbers
            fold = int(np.argmin(((after**2 - before**2) / sizes[group.rows]).sum(axis=1)))
            have[fold, group.rows] += group.numbers
            folds[fold].update(group.members)
        return folds[self.fold]

    def _subset(self, samples: Samples, indices: list[int]) -> list[int]:
        """The training samples that `train_fraction` or `shots_per_class` leaves."""
        if self.shots_per_class is not None:
            kept = self._shots(samples, indices, self.shots_per_class)
        elif self.train_fraction < 1:
            kept = _take(self._strata(samples, indices), self.train_fraction)
        else:
            return indices
        return [i for i in indices if i in kept]

    def _shots(self, samples: Samples, indices: list[int], shots: int) -> set[int]:
        """`shots` samples of each class; for multi-label data at least `shots` per label, the rarest label first."""
        if not samples.classes:
            raise UsageError(f"data.shots_per_class={shots}: the data have no labels; give data.train_fraction=<share>")
        if samples.numbers:
            raise UsageError(
                f"data.shots_per_class={shots}: the data have numbers instead of classes; give "
                "data.train_fraction=<share>"
            )
        members = defaultdict(list)
        for index in indices:
            for c in samples.classes_of(index):
                members[c].append(index)
        random = np.random.default_rng(self.seed)
        kept: set[int] = set()
        for c in sorted(members, key=lambda c: (len(members[c]), c)):
            if len(members[c]) < shots:
                raise UsageError(
                    f"data.shots_per_class={shots}: class {samples.classes[c]!r} has only {len(members[c])} "
                    f"training samples; give at most {len(members[c])}"
                )
            others = [index for index in members[c] if index not in kept]
            missing = max(shots - (len(members[c]) - len(others)), 0)
            kept.update(random.choice(others, missing, replace=False).tolist() if missing else ())
        return kept

    def _strata(self, samples: Samples, indices: list[int]) -> Strata:
        """The samples of each class in random order.

        Multi-label samples count under their combination of labels. Combinations with fewer than `FEW` samples count
        under their rarest label: not all can be balanced, and rare labels need it most. For numbers a stratum is a part
        of the range of the first number.
        """
        if samples.numbers:
            return self._parts(samples, indices)
        frequency, combinations = _frequency(samples, indices), Counter()
        if samples.multi_label:
            combinations = Counter(tuple(samples.classes_of(index)) for index in indices)
        strata = defaultdict(list)
        for index in indices:
            labels = tuple(samples.classes_of(index))
            if samples.multi_label and combinations[labels] < FEW:
                labels = (min(labels, key=frequency.__getitem__, default=-1),)
            strata[labels].append(index)
        return self._shuffled(strata)

    def _parts(self, samples: Samples, indices: list[int]) -> Strata:
        """The samples from the lowest to the highest first number, in parts of equal size, each in random order.

        With groups, a part has room for `FEWEST_IN_PART` groups: a number may be the same in all samples of a group.
        """
        ascending = sorted(indices, key=lambda index: samples.targets[index][0])
        units = len(indices) if samples.groups is None else len({samples.groups[index] for index in indices})
        number = max(1, min(MOST_PARTS, units // FEWEST_IN_PART))
        return self._shuffled({(part,): each.tolist() for part, each in enumerate(np.array_split(ascending, number))})

    def _shuffled(self, strata: Strata) -> Strata:
        random = np.random.default_rng(self.seed)
        return {c: random.permutation(members).tolist() for c, members in sorted(strata.items())}


def _parted(indices: list[int], chosen: set[int]) -> tuple[list[int], list[int]]:
    """The indices that are not chosen, and the chosen ones, in their order."""
    return [i for i in indices if i not in chosen], [i for i in indices if i in chosen]


def _frequency(samples: Samples, indices: list[int]) -> Counter[int]:
    return Counter(c for index in indices for c in samples.classes_of(index))


def _distinct(strata: Strata, samples: Samples) -> Strata:
    """The first sample of each content if copies stay together, else all samples; without classes that have none left.

    The order does not change: data without copies get the same splits in both cases.
    """
    if not (samples.copies_together and samples.digests):
        return strata
    first: dict[str, int] = {}
    for members in strata.values():
        for index in members:
            first.setdefault(samples.digests[index], index)
    kept = {c: [i for i in members if first[samples.digests[i]] == i] for c, members in strata.items()}
    return {c: members for c, members in kept.items() if members}


def _with_copies(chosen: set[int], indices: list[int], samples: Samples) -> set[int]:
    """The chosen samples and, if copies stay together, the samples of `indices` with the same content."""
    if not (samples.copies_together and samples.digests):
        return chosen
    contents = {samples.digests[index] for index in chosen}
    return {index for index in indices if samples.digests[index] in contents}


@dataclass(frozen=True)
class _Group:
    """The samples of a group; `rows` and `numbers`: how many of them are in which stratum."""

    members: list[int]
    rows: np.ndarray
    numbers: np.ndarray


def _groups(strata: Strata, samples: Samples) -> list[_Group]:
    """The groups in random order, large ones first.

    Samples with the same content are in one group if copies stay together.
    """
    row_of = {index: row for row, members in enumerate(strata.values()) for index in members}
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in _components(list(row_of), samples).items():
        members[group].append(index)
    found = []
    for indices in sorted(members.values(), key=len, reverse=True):
        rows, numbers = np.unique([row_of[index] for index in indices], return_counts=True)
        found.append(_Group(indices, rows, numbers))
    return found


def _cut_groups(strata: Strata, samples: Samples, share: float) -> set[int]:
    """Whole groups that hold about `share` of each stratum, and never the last sample of one.

    A group is cut off if that brings the numbers closer to the wanted ones.
    """
    sizes = np.array([len(each) for each in strata.values()])
    have, cut = np.zeros(len(strata)), set()
    for group in _groups(strata, samples):
        before = have[group.rows] - share * sizes[group.rows]
        after = before + group.numbers
        is_closer = ((after**2 - before**2) / sizes[group.rows]).sum() < 0
        if is_closer and (have[group.rows] + group.numbers < sizes[group.rows]).all():
            have[group.rows] += group.numbers
            cut.update(group.members)
    return cut


def _components(indices: list[int], samples: Samples) -> dict[int, int]:
    """Index of a sample -> number of its group; groups that share a content are one, if copies stay together."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]  # shortens the path for the next search
        return key

    groups = {index: f"group {samples.groups[index]}" for index in indices}
    if samples.copies_together and samples.digests:
        for index, group in groups.items():
            parent[root(f"content {samples.digests[index]}")] = root(group)
    roots = {index: root(group) for index, group in groups.items()}
    numbers = {name: number for number, name in enumerate(dict.fromkeys(roots.values()))}
    return {index: numbers[name] for index, name in roots.items()}


def _take(strata: Strata, share: float, leave: int = 0) -> set[int]:
    """The first samples of each stratum: at least one, at most all but `leave`, together about `share` of all."""
    sizes = np.array([len(members) for members in strata.values()])
    wanted, most = share * sizes, sizes - leave
    counts = np.minimum(np.maximum(np.floor(wanted).astype(int), 1), most)
    missing = max(round(wanted.sum()) - counts.sum(), 0)  # goes to the strata that lost most by rounding down
    counts[np.argsort(counts - wanted, kind="stable")[:missing]] += 1
    counts = np.minimum(counts, most)
    return {index for members, n in zip(strata.values(), counts, strict=True) for index in members[:n]}
