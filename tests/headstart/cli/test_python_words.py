"""Settings of a Python program become words that Hydra reads as the same values."""

from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from headstart.cli.python_words import data_words, words_of
from headstart.errors import UsageError


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.25, 0.25),
        (1e-7, 1e-7),
        (np.float64(0.5), 0.5),
        ("resnet50", "resnet50"),
        ("10m", "10m"),
        (Path("my/pictures"), "my/pictures"),
        ("with spaces, and = (signs) 'quoted'", "with spaces, and = (signs) 'quoted'"),
        ("a,b", "a,b"),
        ("null", "null"),
        ("1", "1"),
        ("C:\\pictures\\", "C:\\pictures\\"),
        ("", ""),
        (["a", 1, None], ["a", 1, None]),
        ({"lr": 0.1, "name": "x y"}, {"lr": 0.1, "name": "x y"}),
    ],
)
def test_a_value_arrives_as_it_is(value, read):
    (word,) = words_of({"group__key": value})
    override = OverridesParser.create().parse_override(word)
    assert override.key_or_group == "group.key"
    assert override.value() == read
    assert type(override.value()) is type(read)


@pytest.mark.parametrize("name", ["${oc.env:HOME}", "my ${seed}, 'x'", "C:\\${seed}", "C:\\\\${seed}\\", "a$b{c}"])
def test_a_folder_may_have_any_name(name, composed):
    (word,) = words_of({"data__root": name})
    assert composed("data=image_folder", word).data.root == name


def test_plain_words_look_as_they_are_typed():
    typed = ["model=resnet50", "trainer.max_time=10m", "data.root=my/pictures"]
    assert words_of({"model": "resnet50", "trainer__max_time": "10m", "data__root": "my/pictures"}) == typed


def test_further_words_come_last():
    assert words_of({"seed": 1}, ["~callbacks.dashboard"]) == ["seed=1", "~callbacks.dashboard"]


@pytest.mark.parametrize("overrides", ["seed=1", {"seed": 1}])
def test_further_words_are_a_list(overrides):
    with pytest.raises(UsageError, match="give a list of words"):
        words_of({}, overrides)


def test_an_object_is_no_setting():
    with pytest.raises(UsageError, match="model: a object is no value"):
        words_of({"model": object()})


@pytest.mark.parametrize(
    ("file", "content", "named", "kind"),
    [
        ("x/cat/1.jpg", "", "x", "image_folder"),
        ("x/train/cat/1.PNG", "", "x", "image_folder"),
        ("x/pos/1.txt", "good", "x", "text_folder"),
        ("labels.csv", "file,label\na/1.jpg,cat\n", "labels.csv", "table"),
        ("reviews.tsv", "good\t1\n", "reviews.tsv", "text_table"),
        ("x/train.csv", "text,label\ngood,1\n", "x", "text_table"),
        ("x/train.csv", "image,label\n1.png,1\n", "x", "table"),
    ],
)
def test_own_data_are_told_apart(file, content, named, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(content)
    assert data_words(named) == [f"data={kind}", f"data.root={named}"]


def test_the_name_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/3").mkdir()
    (tmp_path / "digits/3/a.png").touch()
    assert data_words("digits") == ["data=digits"]
    assert data_words("./digits") == ["data=image_folder", "data.root=./digits"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("pictures", "no such file, folder or data set, did you mean 'picture'?"),
        ("digit", "did you mean 'digits'?"),
        ("picture", "it is not clear what it holds"),
        ("a.parquet", "it is not clear what it holds"),
    ],
)
def test_unclear_data_are_refused(given, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture").mkdir()
    (tmp_path / "picture/README.txt").touch()
    (tmp_path / "a.parquet").touch()
    with pytest.raises(UsageError) as refused:
        data_words(given)
    assert told in str(refused.value)
