import time
from collections import Counter

import numpy as np
import pytest

from headstart.data.leaks import leaks
from headstart.data.samples import Samples
from headstart.data.split_file import read_split_file, write_split_file
from headstart.data.splits import SPLITS, SplitPlan
from headstart.errors import UsageError

DEFAULTS = {
    "val_fraction": 0.15,
    "test_fraction": 0.15,
    "train_fraction": 1.0,
    "shots_per_class": None,
    "fold": None,
    "num_folds": None,
    "seed": 0,
}


def plan(**given) -> SplitPlan:
    return SplitPlan(**(DEFAULTS | given))


def samples(*sizes: int) -> Samples:
    """So many samples of each class, the classes mixed."""
    targets = [c for c, size in enumerate(sizes) for _ in range(size)]
    np.random.default_rng(1).shuffle(targets)
    names = [f"{i:04d}" for i in range(len(targets))]
    return Samples(names, targets, [f"c{c}" for c in range(len(sizes))], str)


def labels(count: int = 300, seed: int = 0) -> Samples:
    """Multi-label samples with a frequent, a middling and a rare label; some samples carry none."""
    on = np.random.default_rng(seed).random((count, 3)) < [0.6, 0.3, 0.05]
    return Samples([f"{i:04d}" for i in range(count)], on.astype(int).tolist(), ["often", "some", "rare"], str)


def assign(data: Samples, origin=None, **given) -> dict[str, list[int]]:
    return plan(**given).assign(data, origin or {"train": list(range(len(data)))})


def counts(data: Samples, indices: list[int]) -> list[int]:
    found = Counter(c for i in indices for c in data.classes_of(i))
    return [found[c] for c in range(len(data.classes))]


def everything(assigned: dict[str, list[int]]) -> list[int]:
    return sorted(i for indices in assigned.values() for i in indices)


def test_every_sample_is_in_one_split_and_every_split_has_its_share_of_every_class():
    data = samples(100, 60, 40)
    assigned = assign(data, val_fraction=0.2, test_fraction=0.1)
    assert everything(assigned) == list(range(200))
    assert counts(data, assigned["val"]) == [20, 12, 8]  # of all that came, also after test was cut
    assert counts(data, assigned["test"]) == [10, 6, 4]


@pytest.mark.parametrize(("sizes", "val"), [([10] * 20, 30), ([33, 33, 34], 15), ([7, 93], 15), ([199, 1], 30)])
def test_shares_add_up_where_classes_are_small(sizes, val):
    assigned = assign(samples(*sizes), test_fraction=0)
    assert len(assigned["val"]) == val


def test_small_classes_lose_one_sample_each_and_never_the_last():
    data = samples(100, 3, 2, 1)
    assigned = assign(data)
    assert counts(data, assigned["test"])[1:] == [1, 1, 0]
    assert counts(data, assigned["val"])[1:] == [1, 0, 0]
    assert counts(data, assigned["train"])[1:] == [1, 1, 1]


def test_nothing_to_cut():
    with pytest.raises(UsageError, match=r"cannot cut a val split from 3 .*no class has two.*data.val_fraction=0"):
        assign(samples(1, 1, 1), test_fraction=0)
    with pytest.raises(UsageError, match=r"from 1 training sample: at least two are needed\. Add samples or a val"):
        assign(samples(1), test_fraction=0)
    same = Samples(["a", "b"], [[], []], [], str, ["x", "x"], copies_together=True)
    with pytest.raises(UsageError, match=r"from 2 training samples: at least two must differ\. Add samples, or give"):
        assign(same, test_fraction=0)


def test_seed_decides_and_zero_is_a_seed():
    data = samples(50, 50)
    assert assign(data, seed=0) == assign(data, seed=0)
    for split in ("train", "val", "test"):
        assert assign(data, seed=0)[split] != assign(data, seed=1)[split]


def test_order_of_the_samples_does_not_matter():
    data = samples(30, 20)
    order = np.random.default_rng(3).permutation(50)
    shuffled = Samples([data.names[i] for i in order], [data.targets[i] for i in order], data.classes, str)
    for given in ({}, {"shots_per_class": 3}, {"train_fraction": 0.5}, {"fold": 1, "num_folds": 3}):
        first, second = assign(data, **given), assign(shuffled, **given)
        for split in SPLITS:
            assert [data.names[i] for i in first[split]] == [shuffled.names[i] for i in second[split]]


def test_what_the_data_brings_stays():
    data = samples(40, 40)
    origin = {"train": list(range(40)), "val": list(range(40, 60)), "test": list(range(60, 80))}
    assert assign(data, origin) == origin
    del origin["val"]
    origin["train"] += range(40, 60)
    assigned = assign(data, origin, val_fraction=0.25)
    assert assigned["test"] == origin["test"]
    assert len(assigned["val"]) == 15
    assert sorted(assigned["train"] + assigned["val"]) == origin["train"]


def test_fractions_of_zero_cut_nothing():
    assigned = assign(samples(5, 5), val_fraction=0, test_fraction=0)
    assert assigned == {"train": list(range(10)), "val": [], "test": []}


def test_only_a_test_split():
    data = samples(5, 5)
    assert assign(data, {"test": list(range(10))}) == {"train": [], "val": [], "test": list(range(10))}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_train_fraction(share):
    data = samples(100, 50)
    full = assign(data)
    part = assign(data, train_fraction=share)
    assert set(part["train"]) < set(full["train"])
    assert (part["val"], part["test"]) == (full["val"], full["test"])
    expected = [share * n for n in counts(data, full["train"])]
    assert counts(data, part["train"]) == pytest.approx(expected, abs=1)
    assert len(part["train"]) == round(sum(expected))


def test_train_fraction_keeps_every_class():
    data = samples(1000, 3)
    assert min(counts(data, assign(data, val_fraction=0, test_fraction=0, train_fraction=0.01)["train"])) == 1


def test_shots_per_class():
    data = samples(50, 30, 20)
    full, few = assign(data), assign(data, shots_per_class=7)
    assert counts(data, few["train"]) == [7, 7, 7]
    assert set(few["train"]) < set(full["train"])
    assert (few["val"], few["test"]) == (full["val"], full["test"])
    assert assign(data, shots_per_class=7, seed=1)["train"] != few["train"]


def test_too_many_shots():
    with pytest.raises(UsageError, match=r"data.shots_per_class=15: class 'c1' has only 14 .* give at most 14"):
        assign(samples(50, 20), shots_per_class=15)  # three of 20 each go to val and test


@pytest.mark.parametrize("data", [samples(17, 11, 6), labels()], ids=["classes", "labels"])
def test_folds_partition_what_is_not_test(data):
    test = list(range(4))
    origin = {"train": list(range(4, 20)), "val": list(range(20, len(data))), "test": test}
    folds = [assign(data, origin, fold=fold, num_folds=4) for fold in range(4)]
    assert sorted(i for fold in folds for i in fold["val"]) == list(range(4, len(data)))
    for fold in folds:
        assert fold["test"] == test
        assert everything(fold) == list(range(len(data)))
        assert abs(len(fold["val"]) - (len(data) - 4) / 4) < 1
        assert counts(data, fold["val"]) == pytest.approx([n / 4 for n in counts(data, range(4, len(data)))], rel=0.5)


def test_folds_share_the_test_split_that_is_cut():
    data = samples(30, 30)
    folds = [assign(data, fold=fold, num_folds=3) for fold in range(3)]
    assert len({tuple(fold["test"]) for fold in folds}) == 1
    assert len(folds[0]["test"]) == 9
    assert sorted(i for fold in folds for i in fold["val"]) == sorted(set(range(60)) - set(folds[0]["test"]))


def test_more_folds_than_samples_of_a_class():
    with pytest.raises(UsageError, match=r"data.num_folds=5: the smallest class has only 4"):
        assign(samples(20, 4), test_fraction=0, fold=0, num_folds=5)


def test_labels_are_spread():
    data = labels()
    assigned = assign(data, val_fraction=0.25, test_fraction=0.25)
    assert everything(assigned) == list(range(300))
    share = [n / 4 for n in counts(data, range(300))]
    for split in ("val", "test"):
        assert counts(data, assigned[split]) == pytest.approx(share, rel=0.2)
        assert counts(data, assigned[split])[2] == pytest.approx(share[2], abs=1)  # the rare one is exact
        assert len(assigned[split]) == 75


def test_combinations_of_labels_are_spread():
    """Two labels that are nested: a split by the rarest label alone would not see the combination."""
    targets = [[1, 0, 0]] * 40 + [[1, 1, 0]] * 40 + [[1, 1, 1]] * 20 + [[0, 0, 0]] * 100
    data = Samples([f"{i:04d}" for i in range(200)], targets, ["a", "b", "c"], str)
    found = plan(val_fraction=0.1, test_fraction=0).assign(data, {"train": list(range(200))})
    assert Counter(sum(targets[i]) for i in found["val"]) == {1: 4, 2: 4, 3: 2, 0: 10}


def grouped(sizes: list[int], classes: int = 2, **options) -> Samples:
    """One group of each size; half of the groups have class 0, and so on."""
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    targets = [number % classes for number, size in enumerate(sizes) for _ in range(size)]
    names = [f"{i:04d}" for i in range(len(groups))]
    return Samples(names, targets, [f"c{c}" for c in range(classes)], str, groups=groups, **options)


def splits_of(data: Samples, found: dict[str, list[int]]) -> dict[str, set[str]]:
    """The splits in which each group is."""
    where: dict[str, set[str]] = {group: set() for group in data.groups}
    for split, indices in found.items():
        for index in indices:
            where[data.groups[index]].add(split)
    return where


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_stay_together_and_the_shares_are_met(seed):
    data = grouped([3, 5, 2, 8, 4, 4, 7, 1, 6, 2] * 6)
    found = plan(seed=seed).assign(data, {"train": list(range(len(data)))})
    assert all(len(splits) == 1 for splits in splits_of(data, found).values())
    for split in ("val", "test"):
        assert len(found[split]) / len(data) == pytest.approx(0.15, abs=0.02)
        share = sum(data.targets[i] for i in found[split]) / len(found[split])
        assert share == pytest.approx(sum(data.targets) / len(data), abs=0.08)
    other = plan(seed=seed + 1).assign(data, {"train": list(range(len(data)))})
    assert other["val"] != found["val"]


def test_folds_of_groups_partition_the_data():
    data = grouped([3, 5, 2, 4] * 5)
    folds = [plan(num_folds=4, fold=k, test_fraction=0).assign(data, {"train": list(range(len(data)))})
             for k in range(4)]  # fmt: skip
    assert sorted(i for fold in folds for i in fold["val"]) == list(range(len(data)))
    for fold in folds:
        assert all(len(splits) == 1 for splits in splits_of(data, fold).values())
        assert len(fold["val"]) / len(data) == pytest.approx(0.25, abs=0.08)
        assert sum(data.targets[i] for i in fold["val"]) / len(fold["val"]) == pytest.approx(0.6, abs=0.15)


def test_impossible_folds_of_groups():
    with pytest.raises(UsageError, match=r"only 3 groups of data\.group_by can be left out"):
        plan(num_folds=5, fold=0, test_fraction=0).assign(grouped([12, 12, 12], classes=1), {"train": list(range(36))})


def test_a_class_in_one_group_stays_in_training_in_all_folds():
    data = grouped([5] * 8)
    data.targets = [2 if group == "g0" else target for target, group in zip(data.targets, data.groups, strict=True)]
    data.classes = ["a", "b", "c"]
    for fold in range(4):
        found = plan(num_folds=4, fold=fold, test_fraction=0).assign(data, {"train": list(range(40))})
        assert sum(data.targets[i] == 2 for i in found["train"]) == 5
        assert found["val"]


def test_many_groups_that_share_a_text_take_no_quadratic_time():
    number = 20_000
    data = grouped(
        [2] * number, copies_together=True, digests=[f"d{i}" if i % 2 else "same" for i in range(2 * number)]
    )
    started = time.monotonic()
    with pytest.raises(UsageError, match="too few or too large"):
        plan(test_fraction=0).assign(data, {"train": list(range(2 * number))})
    assert time.monotonic() - started < 20


def test_groups_with_the_same_content_are_one_group():
    data = grouped([2] * 20, copies_together=True, digests=[f"d{i // 4}" for i in range(40)])
    found = plan().assign(data, {"train": list(range(40))})
    where = {}
    for split, indices in found.items():
        for index in indices:
            where.setdefault(data.digests[index], set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())


def test_the_only_group_of_a_class_stays_in_training():
    with pytest.raises(UsageError, match=r"the groups of data\.group_by are too few or too large"):
        plan(test_fraction=0).assign(grouped([20, 20]), {"train": list(range(40))})


def test_shots_of_labels():
    data = labels()
    few = assign(data, val_fraction=0, test_fraction=0, shots_per_class=5)["train"]
    assert counts(data, few)[2] == 5
    assert min(counts(data, few)) == 5
    assert len(few) <= 15


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"val_fraction": 1.0}, "data.val_fraction=1.0: give a share"),
        ({"test_fraction": -0.1}, "data.test_fraction=-0.1: give a share"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing is left"),
        ({"train_fraction": 0.0}, "data.train_fraction=0.0: give a share"),
        ({"train_fraction": 1.1}, "data.train_fraction=1.1: give a share"),
        ({"shots_per_class": 0}, "data.shots_per_class=0: give a whole number"),
        ({"shots_per_class": 5, "train_fraction": 0.5}, "both choose the training samples"),
        ({"fold": 0}, "data.num_folds=5 data.fold=0"),
        ({"num_folds": 5}, "data.num_folds=5 data.fold=0"),
        ({"fold": 5, "num_folds": 5}, "data.fold=5 data.num_folds=5"),
        ({"fold": -1, "num_folds": 5}, "data.fold=-1 data.num_folds=5"),
        ({"fold": 0, "num_folds": 1}, "num_folds of at least 2"),
        ({"seed": -1}, "data.seed=-1"),
    ],
)
def test_impossible_plans(given, message):
    with pytest.raises(UsageError, match=message):
        plan(**given)


@pytest.mark.parametrize("given", [{}, {"num_folds": 3, "fold": 0}])
def test_copies_stay_together_where_a_data_set_says_so(given):
    data = samples(60, 40)
    plain = assign(data, **given)
    data.digests, data.copies_together = data.names, True
    assert assign(data, **given) == plain  # without copies, nothing changes
    data.digests = [str(i // 2) for i in range(100)]  # pairs, also of two classes
    assigned = assign(data, **given)
    assert everything(assigned) == list(range(100))
    assert not leaks(data, assigned)["splits"]
    sizes = {split: len(indices) for split, indices in plain.items()}
    assert {split: len(indices) for split, indices in assigned.items()} == pytest.approx(sizes, abs=4)
    data.copies_together = False
    assert assign(data, **given) == plain


def test_copies_of_one_content_cannot_be_cut():
    data = Samples(["a", "b", "c", "d"], [0, 0, 1, 1], ["x", "y"], str, ["1", "1", "2", "2"], copies_together=True)
    with pytest.raises(UsageError, match="no class has two that differ"):
        assign(data)


def test_a_large_data_set_takes_no_quadratic_time(tmp_path):
    data = samples(100_000, 100_000)
    start = time.process_time()
    assigned = assign(data, shots_per_class=50_000)
    assert time.process_time() - start < 15  # 1 s; with `in` a list many minutes
    write_split_file(tmp_path / "split.csv", data, assigned)
    assert read_split_file(tmp_path / "split.csv", data) == assigned
