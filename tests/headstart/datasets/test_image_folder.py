import csv
import logging
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.datasets.class_folders import class_folders, files_in
from headstart.datasets.image_folder import ImageFolder
from headstart.errors import UsageError

SHADES = {"cat": 40, "dog": 120, "eel": 200}


def picture(path: Path, shade: int = 40, seed: int | None = None) -> Path:
    """A grey picture, 8x8 pixels; another content for every path, or for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(zlib.crc32(bytes(path)) if seed is None else seed)
    pixels = np.full((8, 8, 3), shade, np.uint8) + random.integers(0, 20, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def tree(root: Path, classes=("cat", "dog"), **splits: int) -> Path:
    """`root/<split>/<class>/00.png`; a split named `flat` lies in the root itself. Each class has its shade."""
    for split, count in splits.items():
        for name in classes:
            for i in range(count):
                picture(root / ("" if split == "flat" else split) / name / f"{i:02d}.png", SHADES.get(name, 0))
    return root


def ready(root: Path, **options) -> ImageFolder:
    data = ImageFolder(root=str(root), num_workers=0, **options)
    data.setup()
    data.connect(torch.Tensor.contiguous, torch.Tensor.contiguous)
    return data


def names(data: ImageFolder, split: str) -> list[str]:
    return [data.samples.names[i] for i in data.splits[split]]


def refusal(root: Path, **options) -> str:
    with pytest.raises(UsageError) as caught:
        ready(root, **options)
    return str(caught.value)


def test_the_splits_that_are_there_stay(tmp_path):
    data = ready(tree(tmp_path, train=4, val=3, test=2))
    assert data.num_samples == {"train": 8, "val": 6, "test": 4}
    for split in ("train", "val", "test"):
        assert all(name.startswith(f"{split}/") for name in names(data, split))


def test_pictures_come_with_the_class_of_their_folder(tmp_path):
    data = ready(tree(tmp_path, ("eel", "cat", "dog"), flat=8))
    assert data.classes == ["cat", "dog", "eel"]
    for split in ("train", "val", "test"):
        for images, targets in data.loader(split):
            assert images.dtype == torch.uint8
            assert images.shape[1:] == (3, 8, 8)
            shades = torch.tensor([40, 120, 200])[targets]
            assert ((images.amin((1, 2, 3)) - shades).abs() < 20).all()


@pytest.mark.parametrize("alias", ["val", "valid", "validation", "Val"])
def test_names_of_the_validation_folder(tmp_path, alias):
    data = ready(tree(tmp_path, **{"train": 4, alias: 2, "test": 2}))
    assert {name.split("/")[0] for name in names(data, "val")} == {alias}
    assert data.num_samples == {"train": 8, "val": 4, "test": 4}


def test_two_validation_folders(tmp_path):
    assert "are both the val split" in refusal(tree(tmp_path, train=2, val=2, valid=2))


@pytest.mark.parametrize(
    ("brought", "expected"),
    [
        ({"train": 20}, {"train": 28, "val": 6, "test": 6}),
        ({"train": 20, "test": 3}, {"train": 34, "val": 6, "test": 6}),
        ({"train": 20, "val": 3}, {"train": 34, "val": 6, "test": 6}),
        ({"flat": 20}, {"train": 28, "val": 6, "test": 6}),
    ],
)
def test_missing_splits_are_cut_from_train(tmp_path, brought, expected):
    data = ready(tree(tmp_path, **brought))
    assert data.num_samples == expected
    assert len({name for split in expected for name in names(data, split)}) == len(data.samples)
    if "test" in brought:
        assert all(name.startswith("test/") for name in names(data, "test"))
        assert not any(name.startswith("test/") for split in ("train", "val") for name in names(data, split))
    assert data.class_counts("val") == [3, 3]


def test_official_test_is_in_no_fold(tmp_path):
    root = tree(tmp_path, train=4, val=2, test=2)
    folds = [ready(root, fold=fold, num_folds=3) for fold in range(3)]
    held_out = [name for data in folds for name in names(data, "val")]
    assert sorted(held_out) == sorted(name for name in folds[0].samples.names if not name.startswith("test/"))
    assert all(names(data, "test") == names(folds[0], "test") for data in folds)


def test_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    root = tree(tmp_path, flat=10)
    expected = ready(root)
    scandir, iterdir = os.scandir, Path.iterdir

    class Backwards(list):
        __enter__ = list.__iter__

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", lambda folder: Backwards(sorted(scandir(folder), key=lambda e: e.name)[::-1]))
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self))[::-1]))
    data = ready(root)
    assert data.classes == expected.classes
    assert [names(data, s) for s in data.splits] == [names(expected, s) for s in expected.splits]


def test_split_file_is_kept_when_the_options_or_the_files_change(tmp_path):
    root, file = tree(tmp_path / "data", flat=10), tmp_path / "run" / "split.csv"
    first = ready(root, split_file=str(file))
    rows = list(csv.DictReader(file.open()))
    assert {(row["split"], row["name"]) for row in rows} == {(s, n) for s in first.splits for n in names(first, s)}
    assert all(row["name"].startswith(row["class"] + "/") for row in rows)
    picture(root / "cat" / "005-new.png")
    later = ready(root, split_file=str(file), seed=7, val_fraction=0.4)
    assert [names(later, s) for s in later.splits] == [names(first, s) for s in first.splits]
    (root / "cat" / "00.png").unlink()
    fewer = ready(root, split_file=str(file))
    for split in first.splits:
        assert names(fewer, split) == [name for name in names(first, split) if name != "cat/00.png"]


def spoil(root: Path) -> list[str]:
    """Three bad pictures of cats, in the order of their names."""
    cat = root / "cat"
    (cat / "empty.jpg").touch()
    (cat / "text.jpg").write_text("this is no picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(cat / "trunc.jpg")
    (cat / "trunc.jpg").write_bytes((cat / "trunc.jpg").read_bytes()[:900])
    return [f"{root.name}/cat/{name}.jpg" for name in ("empty", "text", "trunc")]


def test_bad_pictures_are_left_out_and_listed_once(tmp_path, caplog):
    root = tree(tmp_path / "data", train=5, val=3)
    bad = spoil(root / "train") + spoil(root / "val")
    options = {"split_file": str(tmp_path / "run" / "split.csv"), "cache": str(tmp_path / "cache"), "test_fraction": 0}
    data = ready(root, **options)
    assert data.num_samples == {"train": 10, "val": 6, "test": 0}
    assert not set(bad) & set(data.samples.names)
    assert sorted(data.samples.names) == sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    for name in bad:
        assert name in caplog.text
    listings = [Path(path).read_text() for path in re.findall("listed in (.*)", caplog.text)]
    for split, listing in zip(("train", "val"), listings, strict=True):  # no split's overwritten by the next one's
        assert f"{split}/cat/trunc.jpg" in listing
    ready(root, **options)  # another process of the same run
    rows = list(csv.reader((tmp_path / "run" / "bad_files.csv").open()))
    assert [row[0] for row in rows] == ["name", *bad]
    assert all(reason for _, reason in rows)


def test_bad_pictures_are_refused_when_asked(tmp_path):
    root = tree(tmp_path, train=5)
    spoil(root / "train")
    told = refusal(root, on_bad="error")
    assert "train/cat/text.jpg" in told
    assert "data.on_bad=leave_out" in told
    assert "data.on_bad=ignore: choose one of" in refusal(root, on_bad="ignore")


def test_picture_that_goes_bad_later_is_not_replaced(tmp_path):
    data = ready(tree(tmp_path, flat=5))
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"\d\d.png: empty file"):
        next(iter(data.train_dataloader()))


def test_class_with_only_bad_pictures(tmp_path, caplog):
    root = tree(tmp_path, train=5)
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "a.jpg").touch()
    assert "no readable training sample of class 'eel'" in refusal(root)
    assert "train/eel/a.jpg" in caplog.text


def test_empty_class(tmp_path):
    root = tree(tmp_path, train=5)
    (root / "train" / "eel").mkdir()
    assert "class 'eel'" in refusal(root)


def test_class_missing_in_val(tmp_path, caplog):
    root = tree(tmp_path, ("cat", "dog", "eel"), train=5)
    tree(tmp_path, ("eel",), val=2)
    data = ready(root)
    assert [data.samples.targets[i] for i in data.splits["val"]] == [2, 2]
    assert "no sample of class 'cat', 'dog' in val" in caplog.text


def test_unknown_class_in_val(tmp_path):
    tree(tmp_path, train=5)
    assert "did you mean 'dog'?" in refusal(tree(tmp_path, ("cat", "dogs"), val=2))


def test_single_class(tmp_path):
    assert "only one class, 'cat'" in refusal(tree(tmp_path, ("cat",), train=5))


def test_root_that_does_not_exist(tmp_path):
    tree(tmp_path / "animals", train=2)
    told = refusal(tmp_path / "animal")
    assert f"data.root={tmp_path / 'animal'}: no such folder, did you mean 'animals'?" in told
    assert "no such folder. Give a folder" in refusal(tmp_path / "far" / "away")


def test_pictures_without_class_folders(tmp_path):
    picture(tmp_path / "a.png")
    assert f"put the pictures into {tmp_path / '<class>'}, one folder per class" in refusal(tmp_path)


def test_class_that_is_named_like_a_split(tmp_path):
    told = refusal(tree(tmp_path, ("bus", "car", "train"), flat=2))
    assert f"If train is itself a class, put all class folders into {tmp_path / 'train'}" in told


def test_nothing_that_can_be_read(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").touch()
    assert "no picture that can be read (of 2 files)" in refusal(tmp_path)


def test_hidden_and_junk_folders_are_no_classes(tmp_path):
    root = tree(tmp_path, ("cat", "dog", ".ipynb_checkpoints", "__MACOSX"), flat=5)
    picture(root / "cat" / ".ipynb_checkpoints" / "00-checkpoint.png")
    picture(root / "cat" / "._00.png")
    (root / "cat" / "Thumbs.db").write_text("x")
    data = ready(root)
    assert data.classes == ["cat", "dog"]
    assert len(data.samples) == 10


def test_folders_below_a_class_belong_to_it(tmp_path):
    root = tree(tmp_path, flat=5)
    picture(root / "cat" / "2024" / "may" / "x.PNG")
    data = ready(root)
    assert data.samples.targets[data.samples.names.index("cat/2024/may/x.PNG")] == 0


def test_links_that_lead_back(tmp_path):
    root = tree(tmp_path, flat=5)
    (root / "cat" / "up").symlink_to(root)  # through it, dogs would be cats
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "dog" / "endless").symlink_to("endless")
    picture(root / "cat" / "more" / "x.png")
    (root / "cat" / "also").symlink_to(root / "cat" / "more")  # comes before `more` by name
    data = ready(root)
    assert len(data.samples) == 11
    assert "cat/more/x.png" in data.samples.names
    assert data.class_counts("train") == [4, 3]


def test_class_folder_that_is_a_link(tmp_path):
    root = tree(tmp_path / "data", ("cat",), flat=5)
    tree(tmp_path / "elsewhere", ("dog",), flat=5)
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    data = ready(root)
    assert data.classes == ["cat", "dog"]
    assert sum(name.startswith("dog/") for name in data.samples.names) == 5


def test_names_with_accents_and_spaces(tmp_path):
    root = tree(tmp_path / "mes données", ("Noël 🎄", "été indien"), flat=6)
    data = ready(root, split_file=str(tmp_path / "split.csv"))
    assert data.classes == ["Noël 🎄", "été indien"]
    assert ready(root, split_file=str(tmp_path / "split.csv")).splits == data.splits


def test_one_name_for_an_accented_class(tmp_path):
    decomposed, composed = "e\u0301te\u0301", "\u00e9t\u00e9"
    tree(tmp_path, (decomposed, "noel"), train=3)
    tree(tmp_path, (composed, "noel"), val=2)
    data = ready(tmp_path)
    assert data.classes == ["noel", composed]
    assert data.class_counts("val") == [2, 2]
    (tmp_path / "train" / composed).mkdir()
    with pytest.raises(UsageError, match="merge them"):
        class_folders(tmp_path / "train")


@pytest.mark.parametrize("brought", [{"train": 4, "val": 3}, {"train": 20}])
def test_copies_across_splits_are_told(tmp_path, caplog, brought):
    root = tree(tmp_path, **brought)
    for i in range(20):  # so many that both sides of a cut get one
        picture(root / "train" / "cat" / f"copy{i}.png", seed=1)
    if "val" in brought:
        picture(root / "val" / "cat" / "copy.png", seed=1)
    ready(root, test_fraction=0)
    assert "with identical content are in two splits" in caplog.text


def test_without_copies_nothing_is_told(tmp_path, caplog):
    ready(tree(tmp_path, train=10))
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_class_map_of_a_saved_model(tmp_path):
    root = tree(tmp_path, ("dog", "cat"), test=3)
    data = ready(root, classes=["eel", "dog", "cat"], val_fraction=0, test_fraction=0)
    assert data.class_counts("test") == [0, 3, 3]
    ((images, targets),) = data.loader("test")
    assert ((images.amin((1, 2, 3)) < 100) == (targets == 2)).all()
    assert "which the model does not have" in refusal(root, classes=["cat", "eel"])


def test_shots_and_sampler_on_folders(tmp_path):
    data = ready(tree(tmp_path, train=20), shots_per_class=4)
    assert data.class_counts() == [4, 4]
    assert "give at most 14" in refusal(tmp_path, shots_per_class=15)


def test_only_picture_files_count(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("a.txt", "b.PNG", "c.csv", "d.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in files_in(tmp_path, ImageFolder.suffixes)] == ["b.PNG"]
    assert "ignored 2 x .txt, 1 x .csv" in caplog.text


def test_few_kinds_of_other_files_are_listed(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in [f"file {i}" for i in range(30)] + [f"{i}.kind{i}" for i in range(11)] + ["x.kind9"]:
        (tmp_path / name).touch()
    files_in(tmp_path, ImageFolder.suffixes)
    assert "ignored 30 without an ending, 2 x .kind9, 1 x .kind0, " in caplog.text
    assert caplog.text.strip().endswith("1 x .kind6 and 2 more kinds")


def test_pictures_behind_links_to_other_places_are_named(tmp_path, caplog):
    root = tree(tmp_path / "data", flat=4)
    (tmp_path / "link").symlink_to(root)
    (root / "cat" / "again.png").symlink_to(root / "dog" / "00.png")
    ready(tmp_path / "link")
    assert "data.root=" not in caplog.text
    file = picture(tmp_path / "private" / "x.png")
    (root / "cat" / "x.png").symlink_to(file)
    ready(tmp_path / "link")
    assert f"1 sample lies outside data.root={tmp_path / 'link'}, such as {file}" in caplog.text
    (root / "eel").symlink_to(tmp_path / "private")
    ready(root)
    assert f"2 samples lie outside data.root={root}, such as {file}" in caplog.text
