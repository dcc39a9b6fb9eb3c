"""Whole runs: each picture is decoded once, and the results are those of a run without a cache, to the bit."""

import logging
import multiprocessing
import shutil

import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import LambdaCallback

from headstart.caching import picture_cache as pictures
from headstart.caching.fingerprint import of_pictures
from headstart.caching.picture_cache import PictureCache
from headstart.data.module import uncached
from headstart.data.samples import Samples
from headstart.errors import UsageError
from headstart.inputs.images import files
from headstart.inputs.images.augmentation import Shrink
from headstart.inputs.images.files import PictureFiles
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.settle import checkpoint_to_resume

TRAIN, VAL = 16, 8
TIMED = pictures._timed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Smooth pictures of various sizes, `train`, `val` and `test`, two classes."""
    root, number = tmp_path_factory.mktemp("folder"), 0
    for split, count in (("train", TRAIN), ("val", VAL), ("test", 4)):
        for index in range(count):
            place = root / split / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            generator = torch.Generator().manual_seed(number := number + 1)
            small = torch.randint(256, (6, 6, 3), generator=generator, dtype=torch.uint8).numpy()
            size = (120 + 8 * index, 90 + 5 * number)
            Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=95)
    return root


@pytest.fixture
def tiny(composed, folder, tmp_path):
    """Configurations whose runs have folders of their own and one cache."""
    made = []

    def compose(*overrides):
        made.append(1)
        return composed(
            f"paths.run={tmp_path / f'run{len(made)}'}", "data=image_folder", f"data.root={folder}",
            "data.batch_size=8", "data.num_workers=0", "model.image_size=16", "trainer=cpu", "trainer.max_epochs=3",
            "trainer.enable_progress_bar=false", "compare_scratch=false", "test=false", "~callbacks.dashboard",
            "trainer.precision=32-true",
            *overrides,
        )  # fmt: skip

    return compose


@pytest.fixture
def decoded(monkeypatch):
    """The files decoded since, by all processes: fork carries the counter along."""
    total = multiprocessing.Value("i", 0)
    read = files.read_picture

    def counting(*arguments):
        with total.get_lock():
            total.value += 1
        return read(*arguments)

    monkeypatch.setattr(files, "read_picture", counting)

    def since():
        number, total.value = total.value, 0
        return number

    return since


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch):
    """Not the mood of the machine decides."""
    monkeypatch.setattr(pictures, "_timed", lambda *_: (1.0, 0.5))


def fit(cfg, change=lambda data: None, callback=None):
    """Trains and returns task, data and trainer."""
    torch.manual_seed(cfg.seed)
    point = checkpoint_to_resume(cfg)
    trainer, data = build_trainer(cfg, point), build_data(cfg)
    task = build_task(cfg, data, point)
    change(data)
    trainer.callbacks += [callback] if callback else []
    trainer.fit(task, data, ckpt_path=point, weights_only=True)
    return task, data, trainer


def same_run(one, other):
    for (name, value), (_, again) in zip(one[0].state_dict().items(), other[0].state_dict().items(), strict=True):
        assert torch.equal(value, again), name
    assert one[2].callback_metrics == other[2].callback_metrics


@pytest.mark.parametrize(
    "overrides",
    [
        ["augmentation=none"],
        ["augmentation=affine", "augmentation.degrees=20", "augmentation.flip=0.5"],
        ["augmentation=flip_crop", "data.num_workers=2"],
        ["augmentation=trivial_augment", "model.resize_mode=letterbox", "data.sampler=balanced"],
    ],
    ids=" ".join,
)
def test_a_cached_run_is_the_uncached_run_to_the_bit(overrides, tiny, decoded):
    plain = fit(tiny(*overrides, "cache=off"))
    assert decoded() == 3 * (TRAIN + VAL)
    first = fit(tiny(*overrides))
    assert decoded() == TRAIN + VAL
    same_run(first, plain)
    again = fit(tiny(*overrides))
    assert decoded() == 0
    same_run(again, plain)


def test_each_picture_once_and_in_the_next_run_none(tiny, decoded, caplog):
    with caplog.at_level(logging.DEBUG, "headstart"):
        fit(tiny())
        assert decoded() == TRAIN + VAL
        fit(tiny("optimizer.lr=0.1", "data.seed=5", "augmentation=affine"))
        assert decoded() == 0
    assert (
        "pictures of train and val are kept: decoding takes 1000.00 ms, reading back 500.00 ms; 0 of 24" in caplog.text
    )
    assert "reading back 500.00 ms; 24 of 24" in caplog.text
    fit(tiny("augmentation=flip_crop"))
    assert decoded() == TRAIN
    fit(tiny("augmentation=flip_crop", "augmentation.scale=0.9", "cache.activations=null"))
    assert decoded() == TRAIN


def test_computing_activations_keeps_pictures_for_a_later_stage(tiny, decoded):
    overrides = ["finetuning=unfreeze_at", "finetuning.epoch=1", "trainer.num_sanity_val_steps=0"]
    fit(tiny(*overrides))
    assert decoded() == TRAIN + VAL


@pytest.mark.parametrize("setting", ["trainer.max_epochs=1", "trainer.fast_dev_run=true", "cache.pictures=null"])
def test_where_it_does_not_pay_nothing_is_kept(setting, tiny, tmp_path):
    fit(tiny(setting, "cache.activations=null"))
    assert not list((tmp_path / "cache").glob("stores/*"))


def test_where_decoding_is_cheaper_nothing_is_kept(tiny, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "_timed", lambda *_: (1.0, 1.5))
    with caplog.at_level(logging.DEBUG, "headstart"):
        fit(tiny("trainer.max_epochs=2"))
    assert not list((tmp_path / "cache").glob("stores/*"))
    assert "pictures of train and val are not kept: decoding takes 1000.00 ms" in caplog.text


def test_times_are_taken_of_bytes_alone(folder, tmp_path):
    load = PictureFiles([str(path) for path in sorted(folder.rglob("*.jpg"))])
    loading, reading = TIMED(load, [0, 1, 2], tmp_path)
    assert 0 < reading < loading < 0.5
    assert reading > load(0).numel() / 2 / pictures.DISK
    with pytest.raises(pictures.NotPicturesError, match=r"does not give uint8 \(3, height, width\)"):
        TIMED(lambda index: load(index) / 255, [0], tmp_path)


def test_pictures_in_memory_are_not_kept(quick, tmp_path):
    fit(quick("cache.activations=null"))
    assert not (tmp_path / "cache/stores").exists()


def test_an_augmentation_that_tells_nothing_is_not_kept(tiny, decoded, caplog):

    def own(data):
        deterministic = data.eval_transform
        data.connect(lambda picture: deterministic(picture), deterministic)

    with caplog.at_level(logging.DEBUG, "headstart"):
        fit(tiny(), own)
    assert decoded() == 3 * TRAIN + VAL
    assert "pictures of train are not kept: the augmentation does not say" in caplog.text


def test_too_little_room_is_told_and_the_run_is_the_same(tiny, caplog):
    plain = fit(tiny("cache=off"))
    same_run(fit(tiny("cache.max_gb=5e-6", "cache.activations=null")), plain)
    assert caplog.text.count("no more pictures are kept") == 1


def test_damaged_pictures_are_computed_again(tiny, decoded, tmp_path):
    plain = fit(tiny())
    (rows,) = (tmp_path / "cache/stores").glob("*/rows.bin")
    content = bytearray(rows.read_bytes())
    content[5] ^= 1
    content[16 * 16 * 3 + 5] ^= 1
    rows.write_bytes(content)
    decoded()
    same_run(fit(tiny()), plain)
    assert decoded() == 2


def test_after_training_pictures_are_decoded(tiny, decoded):
    task, data, trainer = fit(tiny())
    decoded()
    assert data.load_with is uncached
    trainer.test(task, data, verbose=False)
    assert decoded() == 4


def test_settings_code_and_detail_count():
    preprocess = ImagePreprocess(16, 20)

    def name(side=None, deterministic=preprocess):
        return of_pictures(deterministic, Samples(["a"], [0], ["x", "y"], PictureFiles(["a"], side), ["1" * 40]))

    assert name() == name(deterministic=ImagePreprocess(16, 20))
    assert (
        len({name(), name(32), name(64), name(None, ImagePreprocess(16, 21)), name(None, Shrink(16, "bilinear"))}) == 5
    )


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match=r"cache\.max_gb=0: give a number of gigabytes above 0.* cache=off"):
        PictureCache("somewhere", max_gb=0)


def test_a_cache_that_is_removed_amid_a_run_does_no_harm(tiny, tmp_path):
    def remove(*_):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # in later epochs it is gone

    plain = fit(tiny("cache=off"))
    fit(tiny())
    same_run(fit(tiny(), callback=LambdaCallback(on_train_epoch_end=remove)), plain)
