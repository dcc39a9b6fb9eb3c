"""Whole runs: what is frozen is computed once, and the results are those of a run without a cache."""

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Timer

import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import SingleDeviceStrategy

from headstart.backbones import parts
from headstart.backbones.base import Backbone
from headstart.backbones.parts import InferenceCopy
from headstart.caching import filling
from headstart.caching.activation_cache import ActivationCache, settled_prefix
from headstart.caching.activation_store import ActivationStore, holding
from headstart.caching.fingerprint import of_samples, of_views
from headstart.cli.conf_files import CONF
from headstart.data.activations import Activations
from headstart.errors import UsageError
from headstart.evaluation.evaluate import evaluate
from headstart.runs.directory import Run, find_checkpoint
from headstart.runs.resume import config_to_run
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.run import train, write_config_and_classes
from headstart.training.settle import checkpoint_to_resume

WAITING = "waiting for another process that computes the same activations"
TRAIN_AND_VAL = 68  # of the 80 made-up pictures; the others are test


class Watch(Callback):
    """Notes whether batches bring activations."""

    def __init__(self):
        self.kinds = {"train": [], "val": []}

    def on_train_batch_start(self, trainer, pl_module, batch, index):
        self.kinds["train"].append(isinstance(batch[0], Activations))

    def on_validation_batch_start(self, trainer, pl_module, batch, index, loader=0):
        self.kinds["val"].append(isinstance(batch[0], Activations))


class Stop(Callback):
    """Asks the run to end, as a cluster does, amid an epoch."""

    def __init__(self, epoch, batches):
        self.at = epoch, batches

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, index):
        if (trainer.current_epoch, index + 1) == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def fit(cfg, *callbacks, change=lambda data, task: None):
    """Trains (on) and returns task, data, trainer, watch and cache."""
    torch.manual_seed(cfg.seed)
    point = checkpoint_to_resume(cfg)
    trainer, data = build_trainer(cfg, point), build_data(cfg)
    task, watch = build_task(cfg, data, point), Watch()
    change(data, task)
    trainer.callbacks[2:2] = [watch, *callbacks]
    trainer.fit(task, data, ckpt_path=point, weights_only=True)
    (cache,) = [c for c in trainer.callbacks if isinstance(c, ActivationCache)] or [None]
    return task, data, trainer, watch, cache


@pytest.fixture
def tiny(quick, tmp_path):
    """Configurations whose runs have folders of their own and one cache."""
    made = []

    def compose(*overrides):
        made.append(1)
        return quick(f"paths.run={tmp_path / f'run{len(made)}'}", "finetuning=feature_extraction", "test=false",
                     *overrides)  # fmt: skip

    return compose


def evaluated(run, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [f"run={run}", *overrides])
    return evaluate(cfg, find_checkpoint(cfg.run, cfg.checkpoint))


def stores(tmp_path):
    return sorted(p for p in (tmp_path / "cache/stores").iterdir() if p.is_dir())


def same_weights(one, other, tolerance=0.0):
    one, other = one.state_dict(), other.state_dict()
    assert list(one) == list(other)
    for name, value in one.items():
        torch.testing.assert_close(
            value, other[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    "overrides",
    [
        ["finetuning=feature_extraction"],
        ["finetuning=feature_extraction", "head=mlp", "data.sampler=balanced", "data.num_workers=1"],
        pytest.param(["finetuning=unfreeze_at", "finetuning.epoch=2"], marks=pytest.mark.exhaustive),
        ["finetuning=gradual", "finetuning.batch_norm=[frozen,train]"],
        ["finetuning=top_k", "finetuning.k=2", "finetuning.batch_norm=adapt_stats"],
        pytest.param(
            ["finetuning=top_k", "callbacks=ema", "trainer.accumulate_grad_batches=2"], marks=pytest.mark.exhaustive
        ),
        pytest.param(
            ["finetuning=top_k", "task=multilabel", "data.multi_label=true", "data.batch_size=5"],
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=str,
)
def test_a_cached_run_is_the_uncached_run(overrides, tiny, monkeypatch):
    monkeypatch.setattr(parts, "_fold_batch_norm", lambda network: None)  # which rounds differently
    overrides = ["trainer.max_epochs=4", "optimizer=sgd", *overrides]
    plain, _, without, watch, _ = fit(tiny(*overrides, "cache=off"))
    assert not any(watch.kinds["train"] + watch.kinds["val"])
    for place in ("computed", "found"):
        cached, _, trainer, watch, cache = fit(tiny(*overrides))
        assert any(watch.kinds["train"])
        assert len(watch.kinds["train"]) == without.global_step * without.accumulate_grad_batches
        assert (cache.passes > 0) == (place == "computed")
        same_weights(cached, plain, 1e-6)
        for name, value in without.callback_metrics.items():
            torch.testing.assert_close(trainer.callback_metrics[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("policy", ["frozen", "adapt_stats"])
def test_folding_batch_norm_changes_a_run_by_rounding_alone(policy, tiny):
    overrides = ["trainer.max_epochs=4", "optimizer=sgd", "finetuning=top_k", f"finetuning.batch_norm={policy}"]
    plain, _, without, *_ = fit(tiny(*overrides, "cache=off"))
    cached, _, trainer, *_ = fit(tiny(*overrides))
    same_weights(cached, plain, 2e-5)  # of statistics that follow the data; of all else 1e-6
    for name, value in without.callback_metrics.items():
        torch.testing.assert_close(trainer.callback_metrics[name], value, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_network_of_torchvision(tiny):
    overrides = ["model=mobilenet_v3_small", "model.weights=null", "model.image_size=32", "optimizer=sgd"]

    def pretend(data, task):
        task.backbone.pretrained = True

    plain, _, without, *_ = fit(tiny(*overrides, "cache=off"), change=pretend)
    cached, _, trainer, watch, cache = fit(tiny(*overrides), change=pretend)
    assert all(watch.kinds["train"] + watch.kinds["val"])
    assert cache.passes == TRAIN_AND_VAL
    same_weights(cached, plain, 1e-5)
    assert trainer.callback_metrics["val/acc"] == without.callback_metrics["val/acc"]


def test_each_picture_once_and_in_the_next_run_none(tiny, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, "headstart"):
        *_, watch, cache = fit(tiny())
    assert cache.passes == TRAIN_AND_VAL
    assert all(watch.kinds["train"] + watch.kinds["val"])
    (store,) = stores(tmp_path)
    told = f"frozen prefix of 4 groups, train and val: {TRAIN_AND_VAL} samples computed, 0 found ({store}, 0.0 MB)"
    assert told in caplog.text
    sentences = [record.message for record in caplog.records if record.levelno >= logging.INFO]
    assert f"frozen layers: computing the outputs of {TRAIN_AND_VAL} samples" in sentences
    assert not any(str(store) in sentence for sentence in sentences), "details are for those who look for a fault"
    caplog.clear()
    with caplog.at_level(logging.INFO, "headstart"):
        *_, cache = fit(tiny("optimizer.lr=0.1", "data.batch_size=7", "head=mlp"))  # another job of a sweep
    assert cache.passes == 0
    assert f"frozen layers: the outputs of {TRAIN_AND_VAL} samples are in the cache" in caplog.text
    assert stores(tmp_path) == [store]


def test_other_splits_of_the_same_pictures_are_found(tiny):
    assert fit(tiny("data.num_folds=4", "data.fold=0", "data.test_fraction=0.15"))[-1].passes == TRAIN_AND_VAL
    assert fit(tiny("data.num_folds=4", "data.fold=1", "data.test_fraction=0.15"))[-1].passes == 0


@pytest.mark.slow
def test_every_cut_has_a_store_of_its_own(tiny, tmp_path):
    overrides = ["finetuning=gradual", "trainer.max_epochs=5"]
    *_, watch, cache = fit(tiny(*overrides))
    assert cache.passes == TRAIN_AND_VAL  # behind the stem; from there on to stage1, stage2 and stage3
    assert watch.kinds["train"] == [True] * 16 + [False] * 4
    assert len(stores(tmp_path)) == 4
    assert fit(tiny(*overrides))[-1].passes == 0
    assert fit(tiny("finetuning=top_k", "finetuning.k=3"))[-1].passes == 0


def test_one_pixel_is_a_miss_and_a_label_a_hit(tiny):
    fit(tiny())

    def one_pixel(data, task):
        load, seen = data.samples.load, data.splits["train"][3]

        def changed(index):
            picture = load(index).clone()
            picture[0, 0, 0] ^= int(index == seen)
            return picture

        data.samples.load = changed

    def labels(data, task):
        data.samples.targets = [1 - target for target in data.samples.targets]

    assert fit(tiny(), change=one_pixel)[-1].passes == 1
    assert fit(tiny(), change=labels)[-1].passes == 0


@pytest.mark.parametrize("name", ["stem.0.weight", "stage2.bn1.running_var", "mean"])
def test_one_weight_is_a_miss(name, tiny):
    fit(tiny())

    def one_number(data, task):
        task.backbone.state_dict()[name][0] += 1e-6

    assert fit(tiny(), change=one_number)[-1].passes == TRAIN_AND_VAL


def test_weights_behind_the_cut_do_not_matter(tiny):
    fit(tiny("finetuning=top_k"))

    def one_number(data, task):
        task.backbone.stage3.conv1.weight.data[0] += 1

    assert fit(tiny("finetuning=top_k"), change=one_number)[-1].passes == 0


@pytest.mark.parametrize("setting", ["model.image_size=24", "model.resize_mode=squash"])
def test_a_setting_of_the_transform_is_a_miss(setting, tiny):
    fit(tiny())
    assert fit(tiny(setting))[-1].passes == TRAIN_AND_VAL


def test_augmented_pictures_are_not_cached_but_those_of_validation(tiny, caplog):
    with caplog.at_level(logging.DEBUG, "headstart"):
        *_, watch, cache = fit(tiny("augmentation=flip_crop"))
    assert watch.kinds == {"train": [False] * len(watch.kinds["train"]), "val": [True] * len(watch.kinds["val"])}
    assert cache.passes == 12
    assert "train is not cached: augmentation" in caplog.text
    assert "frozen prefix of 4 groups, val: 12 samples computed" in caplog.text


VIEWS = ["augmentation=flip_crop", "cache.views=3", "trainer.max_epochs=3"]
OF_VIEWS = 3 * 56 + 12


def test_of_fixed_views_the_frozen_layers_see_each_once(tiny):
    class Rows(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, index):
            seen.update(row.numpy().tobytes() for row in batch[0].values)

    seen = set()
    *_, watch, cache = fit(tiny(*VIEWS), Rows())
    assert all(watch.kinds["train"] + watch.kinds["val"])
    assert cache.passes == OF_VIEWS
    assert 56 < len(seen) <= 3 * 56, "epochs differ, within three versions of each"
    assert fit(tiny(*VIEWS, "head=mlp"))[-1].passes == 0
    assert fit(tiny(*VIEWS, "cache.views=4"))[-1].passes == 56, "the first three are there"
    assert fit(tiny(*VIEWS, "augmentation.scale=0.5"))[-1].passes == 3 * 56
    assert fit(tiny("cache.views=3"))[-1].passes == 56, "plain pictures have one version"


def test_a_view_is_what_the_augmentation_makes_of_the_picture(tiny):
    task, data, *_ = fit(tiny(*VIEWS, "trainer.max_epochs=1"), keep_rows := KeepRows())
    rows, backbone = keep_rows.train, task.backbone.eval()
    digests = of_views(data.train_transform, of_samples(data.samples, data.splits["train"]), 3)
    for position, view in ((0, 0), (7, 2)):
        torch.manual_seed(int(digests[3 * position + view][:15], 16))
        picture = data.train_transform(data.samples.load(data.splits["train"][position]))
        with torch.no_grad():
            expected = backbone(picture[None])
        got = rows([(position, 3 * 11 + view)])
        torch.testing.assert_close(got.flatten(), expected.flatten(), rtol=0, atol=1e-5)


class KeepRows(Callback):
    """Keeps what serves the training pictures, which the end of training takes away."""

    def on_train_batch_start(self, trainer, pl_module, batch, index):
        self.train = trainer.datamodule.cached_activations["train"]


def test_fixed_views_and_interruption(tiny, tmp_path):
    whole, *_ = fit(tiny(*VIEWS))
    cfg = tiny(*VIEWS)
    with pytest.raises(SystemExit):
        fit(cfg, Stop(1, 2))
    cfg.resume = cfg.paths.run
    rest, *_ = fit(cfg)
    same_weights(rest, whole)


@pytest.mark.parametrize("known", [False, True])
def test_too_little_room_is_told_and_the_run_works(known, tiny, caplog):
    if known:  # how large the rows are
        fit(tiny("data.num_samples=40"))
    with caplog.at_level(logging.DEBUG, "headstart"):
        *_, watch, cache = fit(tiny("cache.max_gb=1e-5"))
    assert not any(watch.kinds["train"] + watch.kinds["val"])
    assert (
        "not cached: 68 activations of 0.548 kB take 3.73e-05 GB, for which cache.max_gb=1e-05 or the disk"
        in caplog.text
    )
    assert cache.passes == (0 if known else 16), "no more is computed than shows how large and how dear the rows are"


@pytest.mark.slow
def test_what_was_used_longest_ago_makes_room(tiny, tmp_path):
    one_store = 68 * (128 * 4 + 36) + 1000
    limit = f"cache.max_gb={2 * one_store / 1e9}"
    for size in (16, 20):
        fit(tiny(limit, f"model.image_size={size}"))
    os.utime(stores(tmp_path)[0], (1, 1))
    os.utime(stores(tmp_path)[1], (2, 2))
    used_last = stores(tmp_path)[1]
    fit(tiny(limit, "model.image_size=24"))
    left = stores(tmp_path)
    assert len(left) == 2
    assert used_last in left


def test_rows_of_other_samples_make_room_too(tiny, tmp_path):
    limit = f"cache.max_gb={(68 * (128 * 4 + 36) + 1000) / 1e9}"
    fit(tiny(limit))
    *_, watch, cache = fit(tiny(limit, "data.seed=9"))
    assert cache.passes == TRAIN_AND_VAL
    assert all(watch.kinds["train"])
    assert (stores(tmp_path)[0] / "rows.bin").stat().st_size == 68 * 128 * 4


def test_a_damaged_store_leaves_its_room_to_its_rows(tiny, tmp_path):
    limit = f"cache.max_gb={(68 * (128 * 4 + 36) + 1000) / 1e9}"
    fit(tiny(limit))
    (store,) = stores(tmp_path)
    (store / "meta.json").write_text("{")
    *_, watch, cache = fit(tiny(limit))
    assert cache.passes == TRAIN_AND_VAL
    assert all(watch.kinds["train"])


def test_an_unusable_folder_is_told_and_the_run_works(tiny, tmp_path, caplog):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/stores").write_text("a file")
    with caplog.at_level(logging.DEBUG, "headstart"):
        *_, cache = fit(tiny())
    assert cache.passes == 0
    assert "the activations of the frozen layers are not cached: " in caplog.text


@pytest.mark.parametrize("batch", [1, 2], ids=["first batch", "later"])
def test_a_failure_while_computing_is_told_and_the_run_works(batch, tiny, caplog, monkeypatch):
    def forward(self, inputs):
        calls.append(1)
        if len(calls) == batch:
            raise torch.OutOfMemoryError("no memory for a copy")
        return plain(self, inputs)

    plain, calls = InferenceCopy.forward, []
    monkeypatch.setattr(InferenceCopy, "forward", forward)
    with caplog.at_level(logging.DEBUG, "headstart"):
        *_, watch, cache = fit(tiny())
    assert not any(watch.kinds["train"])
    assert cache.passes == 16 * (batch - 1)
    assert "are not cached: OutOfMemoryError: no memory for a copy" in caplog.text
    assert fit(tiny())[-1].passes == TRAIN_AND_VAL


@pytest.mark.parametrize("error", [OSError, IndexError, RuntimeError])
def test_rows_that_cannot_be_mapped_are_told_and_the_run_works(error, tiny, caplog, monkeypatch):
    def serve(self, digests):
        raise error("the folder went away")

    monkeypatch.setattr(ActivationStore, "serve", serve)
    with caplog.at_level(logging.DEBUG, "headstart"):
        *_, watch, cache = fit(tiny())
    assert not any(watch.kinds["train"])
    assert cache.passes == TRAIN_AND_VAL
    assert "the folder went away" in caplog.text


def test_a_transform_that_does_not_tell_its_settings_is_not_cached(tiny, caplog):
    def lambdas(data, task):
        transform = data.eval_transform
        data.connect(lambda picture: transform(picture), transform)
        data.eval_transform = data.train_transform

    with caplog.at_level(logging.DEBUG, "headstart"):
        *_, cache = fit(tiny(), change=lambdas)
    assert cache.passes == 0
    assert "is made while the program runs" in caplog.text


def test_nothing_but_training_sees_activations(tiny, tmp_path):
    task, data, trainer, _, _ = fit(tiny("finetuning=top_k"))
    assert task.rest is None
    assert not data.cached_activations
    assert [name for name in task.state_dict() if "rest" in name] == []
    pictures = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert task(pictures).shape == (1, 2)
    trainer.validate(task, data, verbose=False)
    trainer.test(task, data, verbose=False)
    trainer.predict(task, data.loader("val"))
    (last,) = Path(trainer.default_root_dir).glob("checkpoints/last.ckpt")
    loaded, _ = checkpoint.load_task(last)
    same_weights(loaded, task)


@pytest.fixture
def seen(monkeypatch):
    """The number of pictures of each batch that went into the network."""
    found, usual = [], Backbone.normalise

    def normalise(self, inputs):
        found.append(len(inputs))
        return usual(self, inputs)

    monkeypatch.setattr(Backbone, "normalise", normalise)
    return found


def test_a_frozen_model_is_tested_from_the_cache(tiny, seen):
    words = ["test=true", "finetuning=probe", "callbacks.dashboard.pictures=0", "callbacks.dashboard.mistakes=0"]
    first = train(tiny(*words)).metrics
    seen.clear()
    cfg = tiny(*words)
    assert train(cfg).metrics == first, "to the bit"
    assert evaluated(cfg.paths.run) == pytest.approx({k: v for k, v in first.items() if "test" in k}, abs=1e-6)
    assert seen == []
    assert evaluated(cfg.paths.run, "test_time=flip")
    assert sum(seen) == 2 * 12, "mirrored pictures are not cached"


def test_a_model_that_learned_is_tested_as_a_whole(tiny, caplog):
    cfg = tiny("finetuning=lp_ft", "test=true", "callbacks.best_checkpoint.monitor=null", "trainer.max_epochs=3")
    with caplog.at_level(logging.DEBUG, "headstart.caching.tested"):
        metrics = train(cfg).metrics
    assert "rows computed" not in caplog.text
    assert {k: v for k, v in metrics.items() if "test" in k} == pytest.approx(evaluated(cfg.paths.run), abs=1e-6)


def test_layers_behind_the_frozen_ones_are_tested_from_rows_of_these(tiny, tmp_path):
    words = ["test=true", "finetuning=top_k", "trainer.max_epochs=1"]
    whole = train(tiny(*words, "cache=off")).metrics
    assert train(tiny(*words)).metrics == pytest.approx(whole, abs=1e-4)
    (store,) = map(ActivationStore, stores(tmp_path))
    assert len(store.records) == 80, "the rows of the test, too"


def test_a_run_that_fails_goes_back_to_pictures(tiny):
    class Fail(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            self.seen = pl_module, trainer.datamodule
            raise ZeroDivisionError

    fail = Fail()
    with pytest.raises(ZeroDivisionError):
        fit(tiny(), fail)
    task, data = fail.seen
    assert task.rest is None
    assert not data.cached_activations


@pytest.mark.parametrize("remove", [False, True], ids=["kept", "removed"])
@pytest.mark.parametrize(
    "place", [(0, 2), *(pytest.param(place, marks=pytest.mark.exhaustive) for place in [(1, 1), (2, 3)])], ids=str
)
def test_an_interrupted_run_goes_on_to_the_bit(place, remove, tiny, tmp_path):
    overrides = ["finetuning=gradual", "finetuning.every=2", "trainer.max_epochs=4", "head=mlp"]
    whole, *_ = fit(tiny(*overrides))
    shutil.rmtree(tmp_path / "cache")
    cfg = tiny(*overrides)
    with pytest.raises(SystemExit):
        fit(cfg, Stop(*place))
    if remove:
        shutil.rmtree(tmp_path / "cache")
    cfg.resume = cfg.paths.run
    rest, *_, cache = fit(cfg)
    assert cache.passes == remove * TRAIN_AND_VAL
    same_weights(rest, whole)


@pytest.mark.parametrize("usable", ["before", "after"])
def test_a_resumed_run_does_what_the_run_did_before(usable, tiny, tmp_path, caplog):
    """Or its numbers would differ, by rounding, from those of a run without interruption."""
    blocked = tmp_path / "cache/stores"

    def block():
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        blocked.parent.mkdir()
        blocked.write_text("a file")

    if usable == "after":
        block()
    whole, *_ = fit(tiny("trainer.max_epochs=2"))
    cfg = tiny("trainer.max_epochs=2")
    with pytest.raises(SystemExit):
        fit(cfg, Stop(0, 2))
    if usable == "before":
        block()
    else:
        blocked.unlink()
    cfg.resume = cfg.paths.run
    with caplog.at_level(logging.DEBUG, "headstart"):
        rest, *_, watch, cache = fit(cfg)
    assert watch.kinds["train"] == [False] * len(watch.kinds["train"])
    if usable == "after":
        assert "not cached, as before the interruption" in caplog.text
        same_weights(rest, whole)
    else:
        assert "before the interruption they were: the results may differ by rounding" in caplog.text
        same_weights(rest, whole, 1e-4)
    assert cache.decided == {0: False}


@pytest.mark.slow
def test_a_damaged_store_is_computed_again(tiny, tmp_path):
    plain, *_ = fit(tiny())
    (store,) = stores(tmp_path)

    def rows(change):
        content = bytearray((store / "rows.bin").read_bytes())
        change(content)
        (store / "rows.bin").write_bytes(content)

    def flip(content):
        content[512 * 3 + 7] ^= 1

    def cut(content):  # the last rows, the one that took the damaged one's place among them
        del content[512 * 60 + 5 :]

    for change, lost in ((flip, 1), (cut, 9)):
        rows(change)
        again, *_, cache = fit(tiny())
        assert cache.passes == lost
        same_weights(again, plain, 1e-6)
    for name in ("index.bin", "meta.json"):
        content = bytearray((store / name).read_bytes())
        for place in range(0, len(content), max(len(content) // 10, 1)):
            content[place] ^= 4
        (store / name).write_bytes(content)
        again, *_, cache = fit(tiny())
        assert cache.passes > 0
        same_weights(again, plain, 1e-6)
    for name in ("index.bin", "meta.json", "rows.bin"):
        (store / name).unlink()
        again, *_, cache = fit(tiny())
        assert cache.passes == TRAIN_AND_VAL
        same_weights(again, plain, 1e-6)
    assert fit(tiny())[-1].passes == 0


def test_a_debug_run_fills_nothing(tiny, caplog):
    with caplog.at_level(logging.DEBUG, "headstart"):
        assert fit(tiny("trainer.fast_dev_run=true"))[-1].passes == 0
    assert "not cached: this run sees a few batches only" in caplog.text


def test_of_a_shortened_epoch_nothing_is_cached(tiny, caplog):
    with caplog.at_level(logging.DEBUG, "headstart"):
        *_, watch, cache = fit(tiny("trainer.limit_train_batches=1", "trainer.limit_val_batches=0"))
    assert cache.passes == 0
    assert not any(watch.kinds["train"])
    assert "train is not cached: trainer.limit_train_batches=1 leaves out" in caplog.text


def test_a_run_goes_on_without_the_cache(tiny):
    cfg = tiny("trainer.max_epochs=1", "scheduler=none")
    write_config_and_classes(Run(Path(cfg.paths.run)), cfg, fit(cfg)[0])
    words = [f"resume={cfg.paths.run}", "cache=off", "trainer.max_epochs=2"]
    hydra = OmegaConf.structured(HydraConf)
    hydra.mode, hydra.overrides.task = RunMode.RUN, words
    again = config_to_run(tiny(*words, f"paths.run={cfg.paths.run}"), hydra)
    assert again.cache is None
    *_, watch, cache = fit(again)
    assert cache is None
    assert watch.kinds["train"] == [False] * 4


def test_batch_norm_that_follows_the_data_is_not_frozen(tiny):
    task, *_ = fit(tiny())
    assert settled_prefix(task) == 4
    norm = task.backbone.stage1.bn1
    task.kept_in_eval = [module for module in task.kept_in_eval if module is not norm]
    assert settled_prefix(task) == 1


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match=r"cache\.max_gb=0: give a number of gigabytes above 0.* cache=off"):
        ActivationCache("somewhere", max_gb=0)


def train_each(variables, cfgs):
    """In a process of its own: one run after the other; how many samples it sent through the frozen prefix in each."""
    os.environ.update(variables)
    passes = []
    for cfg in cfgs:
        Path(cfg.paths.run).mkdir(parents=True, exist_ok=True)
        notes = logging.FileHandler(Path(cfg.paths.run) / f"{os.getpid()}.log")
        logging.getLogger("headstart").addHandler(notes)
        logging.getLogger("headstart").setLevel(logging.INFO)
        cache = fit(cfg)[-1]
        passes.append(cache.passes if cache else None)
    return passes


@pytest.fixture
def pair(monkeypatch):
    """Two processes that have loaded everything: to start one from nothing takes many times what it trains for."""
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{root / 'src'}")  # what it loads first asks no sys.path
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(2, context) as pool:

        def submit(cfgs, *variables):
            for cfg in cfgs:
                OmegaConf.resolve(cfg)
            return [pool.submit(train_each, more, cfgs) for more in variables]

        yield submit


def told(cfg):
    return "".join(file.read_text() for file in Path(cfg.paths.run).glob("*.log"))


@pytest.mark.slow
def test_of_two_runs_at_once_one_computes(tiny, tmp_path, pair):
    fit(tiny())  # for its name
    (store,) = stores(tmp_path)
    shutil.rmtree(store)
    with holding(store):
        cfgs = [tiny(), tiny()]
        (one,), (other,) = (pair([cfg], {}) for cfg in cfgs)
        while not all(WAITING in told(cfg) for cfg in cfgs):
            assert not one.done(), one.result()
            assert not other.done(), other.result()
            time.sleep(0.05)
    assert sorted(one.result() + other.result()) == [0, TRAIN_AND_VAL]


def test_processes_hear_of_each_other_while_their_first_one_waits(tiny, tmp_path, monkeypatch):
    fit(tiny())
    (store,) = stores(tmp_path)
    shutil.rmtree(store)
    broadcast, told = SingleDeviceStrategy.broadcast, []

    def counted(self, value, *where):
        told.append(value)
        if len(told) == 6:
            other.release()
        return broadcast(self, value, *where)

    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", counted)
    monkeypatch.setattr(filling, "WAIT_SECONDS", 0.1)
    with FileLock(f"{store}.lock", thread_local=False) as other:
        end = Timer(20, other.release, [True])  # or this would wait for ever where nothing is told
        end.start()
        *_, cache = fit(tiny())
    end.cancel()
    assert len(told) > 6
    assert cache.passes == TRAIN_AND_VAL


@pytest.mark.parametrize(
    "finetuning",
    [
        pytest.param(["finetuning=top_k"], marks=pytest.mark.exhaustive, id="top_k"),
        pytest.param(["finetuning=gradual", "trainer.max_epochs=3"], id="gradual"),
    ],
)
@pytest.mark.slow
def test_processes_of_a_run_share_the_work(finetuning, tiny, pair):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    ranks = [launch | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    overrides = ["trainer=ddp_cpu", *finetuning, "optimizer=sgd", "data.batch_size=8"]
    cfgs = [tiny(*overrides), tiny(*overrides), tiny(*overrides, "cache=off")]
    assert [run.result() for run in pair(cfgs, *ranks)] == [[TRAIN_AND_VAL // 2, 0, None]] * 2
    cached, again, plain = (checkpoint.load_task(Path(cfg.paths.run) / "checkpoints/last.ckpt")[0] for cfg in cfgs)
    same_weights(cached, plain, 1e-5)
    same_weights(again, cached)
