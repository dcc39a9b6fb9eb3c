"""Usual layouts are understood, and others are told instead of trained."""

import pytest
from PIL import Image

from headstart.datasets.folder_layout import find_splits
from headstart.datasets.image_folder import ImageFolder
from headstart.errors import UsageError


@pytest.fixture
def laid_out(tmp_path):
    """A folder with these pictures in it."""

    def lay_out(*files):
        for number, file in enumerate(files):
            path = tmp_path / "root" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        return tmp_path / "root"

    return lay_out


def ready(root):
    data = ImageFolder(root=str(root), num_workers=0)
    data.setup()
    return data


def refusal(root):
    with pytest.raises(UsageError) as refused:
        ready(root)
    return str(refused.value)


def in_folders(*folders, number=4):
    return [f"{folder}/{i}.png" for folder in folders for i in range(number)]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("training_set", "test_set"), ("train", "test")),
        (("train", "valid", "test"), ("train", "val", "test")),
        (("Training Images", "validation-images"), ("train", "val")),
        (("trainset", "testdata"), ("train", "test")),
        (("train", "dev", "holdout"), ("train", "val", "test")),
        (("dev", "eval"), ()),  # could be classes
        (("trainer", "testament"), ()),
        (("trains", "planes"), ()),
    ],
)
def test_names_of_splits(names, found, tmp_path):
    for name in names:
        (tmp_path / name).mkdir()
    assert tuple(split for split, folders in find_splits(tmp_path).items() if folders) == found


def test_kaggles_layout_has_its_classes_and_its_test(laid_out):
    folders = [f"{split}/{name}" for split in ("training_set", "test_set") for name in ("cats", "dogs")]
    data = ready(laid_out(*in_folders(*folders, number=8)))
    assert data.classes == ["cats", "dogs"]
    assert data.num_samples["test"] == 16


def test_folders_that_read_like_other_splits_are_not_trained_as_classes(laid_out):
    told = refusal(laid_out(*in_folders("part1/cats", "part1/dogs", "part2/cats", "part2/dogs")))
    assert "the folders 'part1', 'part2' in" in told
    assert "all hold the same folders, 'cats', 'dogs': are they the splits? Then call them train, val and test" in told


def test_classes_with_the_same_folders_inside_may_lie_in_train(laid_out):
    data = ready(laid_out(*in_folders("train/cat/day", "train/cat/night", "train/dog/day", "train/dog/night")))
    assert data.classes == ["cat", "dog"]


def test_a_folder_doubled_by_unpacking(laid_out):
    root = laid_out(*in_folders("photos/cats", "photos/dogs"))
    told = refusal(root)
    assert "holds only the folder 'photos', with 'cats', 'dogs' in it: if these are the classes, type " in told
    assert told.endswith(f"data.root={root}/photos")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("photos.zip", "is an archive: unpack it, and give the folder that it makes"),
        ("labels.csv", "is a file: if it is a table of pictures and their labels, type data=table data.root="),
        ("labels.xlsx", "is a table that is not read: save it as .csv, and type data=table data.root="),
        ("cats/1.jpg", "is one picture: give the folder that has one sub-folder per class, perhaps "),
        ("notes.txt", "is a file: give a folder"),
    ],
)
def test_a_file_in_place_of_a_folder(name, told, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert told in refusal(file)


def test_what_is_not_used_is_named(laid_out, caplog):
    ready(laid_out(*in_folders("train/cat", "train/dog", "unlabelled"), "loose.png"))
    assert "not used, because they are no split: 'unlabelled'" in caplog.text
    assert "pictures in no class folder, which are not used: 1" in caplog.text


def test_names_that_differ_only_in_case(laid_out, caplog):
    ready(laid_out(*in_folders("cat", "Cat", "dog")))
    assert "the names of the classes 'Cat', 'cat' differ only in case: are they one class?" in caplog.text
