"""Each frozen layer group sees a picture once, whichever stages need it; what cannot be chained works as it would."""

import logging
import shutil
from collections import Counter

import pytest
import torch

from headstart.backbones.parts import InferenceCopy, NoCleanCutError
from headstart.caching import activation_cache as activations
from headstart.caching import chain, filling
from headstart.caching.activation_cache import ActivationCache
from headstart.caching.activation_store import ActivationStore
from headstart.training.build import build_data, build_task, build_trainer

SAMPLES = 68  # train and val of the 80 made-up pictures; the others are test
GROUPS = ("stem", "stage1", "stage2", "stage3")
GRADUAL = ["finetuning=gradual", "trainer.max_epochs=4", "optimizer=sgd"]


@pytest.fixture
def fit(quick, tmp_path):
    """Trains and returns task and cache; all runs share the folder of stores."""
    made = []

    def train(*overrides):
        made.append(1)
        cfg = quick(f"paths.run={tmp_path / f'run{len(made)}'}", "test=false", *overrides)
        torch.manual_seed(cfg.seed)
        trainer, data = build_trainer(cfg), build_data(cfg)
        task = build_task(cfg, data)
        trainer.fit(task, data)
        (cache,) = [c for c in trainer.callbacks if isinstance(c, ActivationCache)] or [None]
        return task, cache

    return train


@pytest.fixture
def seen(monkeypatch):
    """How many samples each layer group was given in all fills."""
    counts, plain = Counter(), InferenceCopy.forward

    def counted(self, inputs):
        names = {name.split(".")[0] for name, _ in self.network.named_parameters()}
        counts.update({name: len(inputs) for name in names})
        return plain(self, inputs)

    monkeypatch.setattr(InferenceCopy, "forward", counted)
    return counts


@pytest.fixture
def unchained(monkeypatch):
    """As though no stage knew of later ones."""
    monkeypatch.setattr(activations, "_later_prefixes", lambda *_: [])


def rows(folder):
    """The rows under each sample's digest in every store."""
    stores = {path.name: ActivationStore(path) for path in (folder / "cache/stores").iterdir() if path.is_dir()}
    return {
        name: {digest: store.units()[first].clone() for digest, (first, _, _) in store.records.items()}
        for name, store in stores.items()
    }


def test_each_group_sees_each_picture_once(fit, seen, caplog):
    with caplog.at_level(logging.DEBUG, "headstart"):
        _, cache = fit(*GRADUAL)
    assert seen == dict.fromkeys(GROUPS, SAMPLES)
    assert cache.passes == SAMPLES
    for groups in (1, 2, 3):
        assert f"frozen prefix of {groups} groups, train and val: {SAMPLES} samples computed for a later" in caplog.text
        assert f"frozen prefix of {groups} groups, train and val: 0 samples computed, {SAMPLES} found" in caplog.text
    fit(*GRADUAL)
    assert seen == dict.fromkeys(GROUPS, SAMPLES)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([], id="plain", marks=pytest.mark.slow),
        pytest.param(["augmentation=flip_crop", "cache.views=2"], id="views"),
    ],
)
def test_chained_rows_are_those_of_a_direct_fill_to_the_bit(overrides, fit, tmp_path, monkeypatch):
    fit(*GRADUAL, *overrides)
    chained = rows(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(activations, "_later_prefixes", lambda *_: [])
    fit(*GRADUAL, *overrides)
    direct = rows(tmp_path)
    assert chained.keys() == direct.keys()
    assert len(chained) == 4
    for name, found in direct.items():
        assert chained[name].keys() == found.keys()
        assert all(torch.equal(chained[name][digest], row) for digest, row in found.items())


def test_without_the_chain_early_groups_see_each_picture_again_and_again(fit, seen, unchained):
    fit(*GRADUAL)
    assert seen == {name: SAMPLES * times for name, times in zip(GROUPS, (4, 3, 2, 1), strict=True)}


def test_stages_that_never_begin_are_not_provided_for(fit, seen, tmp_path):
    fit(*GRADUAL, "trainer.max_epochs=2")
    assert len(rows(tmp_path)) == 2
    assert seen == dict.fromkeys(GROUPS, SAMPLES)


def test_a_few_new_pictures_go_the_same_way(fit, seen):
    fit(*GRADUAL, "data.train_fraction=0.5")
    before = seen.copy()
    assert before["stem"] < SAMPLES
    fit(*GRADUAL)
    assert seen == dict.fromkeys(GROUPS, SAMPLES)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["finetuning=gradual"], [1, 2, 3]),
        (["finetuning=gradual", "finetuning.groups=2"], [2]),
        (["finetuning=gradual", "finetuning.every=2"], [3]),
        (["finetuning=unfreeze_at", "finetuning.epoch=1"], []),
        (["finetuning=lp_ft"], []),
        (["finetuning=gradual", "trainer.max_epochs=-1", "scheduler=none", "trainer.max_time=00:00:00:01"], []),
    ],
    ids=lambda given: " ".join(map(str, given)),
)
def test_later_prefixes(overrides, expected, fit, monkeypatch):
    asked, plain = [], activations._later_prefixes
    monkeypatch.setattr(activations, "_later_prefixes", lambda *given: asked.append(plain(*given)) or asked[-1])
    fit("trainer.max_epochs=4", *overrides)
    assert asked[0] == expected


class Planned:
    """Stands in for a trainer at its first stage, of four groups, and so many frozen in each stage."""

    class _Group:
        def __init__(self, name):
            self.name = name

    def __init__(self, frozen, solved):
        from headstart.finetuning.gradual import Gradual
        from headstart.finetuning.stages import Stage

        (strategy,) = self.callbacks = [Gradual()]
        strategy.plan = [Stage(frozenset(GROUPS[n:]), 1, closed_form=s) for n, s in zip(frozen, solved, strict=True)]
        self.max_epochs = 10
        self.lightning_module = type("Task", (), {"layer_groups": [self._Group(name) for name in GROUPS]})


@pytest.mark.parametrize(
    ("frozen", "random", "expected"),
    [
        ([4, 3, 1], False, [1, 3]),
        ([4, 1, 3], False, [1]),  # what comes third has learned by then
        ([4, 0, 3], False, []),
        ([4, 4, 2, 2], False, [2]),
        ([4, 3, 1], True, []),  # the first computes its head from plain pictures, the others see augmented ones
    ],
)
def test_what_learns_in_between_or_sees_other_pictures_is_left_out(frozen, random, expected):
    trainer = Planned(frozen, [True] + [False] * (len(frozen) - 1))
    assert activations._later_prefixes(trainer, frozen[0], random) == expected


def test_where_rows_of_later_stages_find_no_room_the_stage_has_its_own(fit, seen, tmp_path, caplog):
    of_stage3, of_stage2 = (SAMPLES * (numbers * 4 + 32) for numbers in (128, 64 * 8 * 8))
    limit = f"cache.max_gb={(of_stage3 + of_stage2 + 1000) / 1e9}"
    with caplog.at_level(logging.DEBUG, "headstart"):
        fit(*GRADUAL, limit)
    assert "the activations behind 2 groups are not kept for a later stage: cache.max_gb=" in caplog.text
    assert "frozen prefix of 3 groups, train and val: 0 samples computed, 68 found" in caplog.text
    assert "are not cached: 68 activations of 32.8 kB take 0.00223 GB" in caplog.text, "the stage says it too"
    assert seen["stage3"] == SAMPLES


def test_where_two_cuts_at_once_are_not_possible_rows_come_from_pictures(fit, seen, caplog, monkeypatch):
    def refuse(*_):
        raise NoCleanCutError("the code is tangled")

    monkeypatch.setattr(chain, "in_parts", refuse)
    with caplog.at_level(logging.DEBUG, "headstart"):
        _, cache = fit(*GRADUAL)
    assert "activations behind 3 groups are computed from the inputs: the code is tangled" in caplog.text
    assert seen == {name: SAMPLES * times for name, times in zip(GROUPS, (4, 3, 2, 1), strict=True)}
    assert cache.passes == 4 * SAMPLES


def test_a_cut_before_the_end_of_the_frozen_groups_is_told(fit, caplog, monkeypatch):
    plain = chain.in_two_parts

    def refuse(backbone, groups):
        if groups == 3:
            raise NoCleanCutError("the code is tangled")
        return plain(backbone, groups)

    monkeypatch.setattr(chain, "in_two_parts", refuse)
    with caplog.at_level(logging.DEBUG, "headstart"):
        fit("finetuning=top_k", "finetuning.k=1", "trainer.max_epochs=1")
    assert "the backbone cannot be cut behind its 3 frozen groups, only behind 2" in caplog.text
    assert "frozen prefix of 2 groups" in caplog.text


def test_a_shorter_prefix_that_fails_is_left_out(fit, seen, caplog, monkeypatch):
    plain = filling.Filler.filled_rows

    def fail(self, network, inputs, must_pay):
        if {name.split(".")[0] for name, _ in network.named_parameters()} == {"stem"}:
            raise filling.NotCachedError("the disk is full")
        return plain(self, network, inputs, must_pay)

    monkeypatch.setattr(filling.Filler, "filled_rows", fail)
    with caplog.at_level(logging.DEBUG, "headstart"):
        fit(*GRADUAL)
    assert "the activations behind 1 group are not kept for a later stage: the disk is full" in caplog.text
    assert "the activations of the frozen layers are not cached: the disk is full" in caplog.text, "its own stage"
    assert seen == dict.fromkeys(GROUPS, SAMPLES)


def test_rows_that_are_slower_to_read_than_to_compute_are_refused(fit, tmp_path, caplog, monkeypatch):
    fit("finetuning=feature_extraction")
    kept = rows(tmp_path)
    monkeypatch.setattr(filling, "DISK", 1000)
    with caplog.at_level(logging.DEBUG, "headstart"):
        fit("finetuning=top_k", "finetuning.k=1", f"cache.max_gb={(68 * (128 * 4 + 36) + 1000) / 1e9}")
        fit("finetuning=top_k", "finetuning.k=2")
    assert "ms, reading its 0.0164 MB back 16420.00 ms" in caplog.text
    refused = {name: found for name, found in rows(tmp_path).items() if name not in kept}
    assert not any(refused.values())
    assert rows(tmp_path).keys() >= kept.keys(), "those that are refused drive out no others"
