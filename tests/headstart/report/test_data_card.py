"""The section of the report about the data."""

import pytest
from omegaconf import OmegaConf

from headstart.data.leaks import leaks
from headstart.data.samples import Samples
from headstart.report.data_card import origin
from headstart.report.sampling import evenly

PLAN = {
    "shots_per_class": None, "train_fraction": 1.0, "num_folds": None, "fold": None,
    "val_fraction": 0.15, "test_fraction": 0.2, "seed": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("split", "changes", "brought", "told"),
    [
        ("val", {}, {"train", "val"}, "the data set's own"),
        ("val", {}, {"train"}, "0.15 of train, stratified by class, seed 3"),
        ("test", {}, {"train"}, "0.2 of train, stratified by class, seed 3"),
        ("val", {"num_folds": 5, "fold": 2}, {"train", "val"}, "fold 2 of 5 (counted from 0), stratified, seed 3"),
        ("train", {"shots_per_class": 10}, {"train"}, "10 samples per class, drawn with seed 3"),
        (
            "train",
            {"train_fraction": 0.1},
            {"train"},
            "0.1 of the training samples, stratified by class, drawn with seed 3",
        ),
        ("train", {}, {"train"}, "the rest of the data set's own train split"),
        ("train", {}, {"train", "val", "test"}, "the data set's own"),
        ("test", {}, None, "as listed in the run's split file"),
    ],
)
def test_how_a_split_came_about(split, changes, brought, told):
    plan = OmegaConf.create(PLAN | changes)
    assert origin(split, plan, None if brought is None else frozenset(brought)) == told


def test_the_same_content_in_two_splits_is_found():
    samples = Samples(["a", "b", "c", "d"], [0, 1, 0, 1], ["x", "y"], None, ["1", "2", "1", "1"])
    found = leaks(samples, {"train": [0, 1], "val": [2], "test": [3]})
    assert found == {"splits": [("a", "c"), ("a", "d")], "classes": [("a", "d")]}
    samples.digests = None
    assert leaks(samples, {"train": [0, 1], "val": [2]}) == {"splits": [], "classes": []}


def test_evenly_chosen_items_include_both_ends():
    assert evenly(list(range(10)), 4) == [0, 3, 6, 9]
    assert evenly([1, 2], 4) == [1, 2]
