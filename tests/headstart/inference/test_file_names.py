import io
import os
from types import SimpleNamespace

import pytest

from headstart.errors import UsageError
from headstart.inference.file_names import find_files
from headstart.inputs.images.decode import PICTURE_SUFFIXES


def find_pictures(given):
    return find_files(given, PICTURE_SUFFIXES, "picture")


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "deeper/c.jpeg", ".hidden.jpg"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "pictures"


def names(folder, found):
    return [os.path.relpath(name, folder) for name in found.names]


def test_a_folder_gives_its_pictures_sorted_and_those_of_the_folders_below(folder):
    found = find_pictures(str(folder))
    assert found.total == 3
    assert names(folder, found) == ["a.PNG", "b.jpg", "deeper/c.jpeg"]


def test_a_file_is_taken_whatever_its_ending(folder):
    found = find_pictures(str(folder / "notes.txt"))
    assert (found.total, names(folder, found)) == (1, ["notes.txt"])


def test_a_pattern_gives_its_files_sorted_and_no_folders(folder):
    assert names(folder, find_pictures(f"{folder}/*")) == ["a.PNG", "b.jpg", "notes.txt"]
    found = find_pictures(f"{folder}/**/*.jp*g")
    assert (found.total, names(folder, found)) == (2, ["b.jpg", "deeper/c.jpeg"])


def test_a_folder_may_be_called_like_a_pattern(folder):
    odd = folder.with_name("pictures [2020]")
    folder.rename(odd)
    assert find_pictures(str(odd)).total == 3


def test_several_inputs(folder):
    found = find_pictures([f"{folder}/b.jpg", str(folder)])
    assert found.total == 4
    assert next(found.names) == f"{folder}/b.jpg"
    with pytest.raises(UsageError, match="no such file or folder"):
        find_pictures([str(folder), "gone.jpg"])


def test_standard_input_gives_names_as_they_come_and_as_they_are(monkeypatch):
    text = io.BytesIO(b"one.jpg\r\n\ntwo words.jpg\n\xff.jpg")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=text))
    found = find_pictures("-")
    assert found.total is None
    assert list(found.names) == ["one.jpg", "two words.jpg", os.fsdecode(b"\xff.jpg")]


def test_a_dangling_link_is_a_file_that_cannot_be_read_not_a_mistake(tmp_path):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert find_pictures(str(tmp_path / "link.jpg")).total == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("picturse", "did you mean 'pictures'?"),
        ("pictures/*.gif", "no file matches this pattern"),
        ("empty", "no file below this folder has the ending of a picture"),
        ("-", "there is no file name on standard input"),
        ("https://example.org/a.jpg", "nothing is downloaded here"),
        ("photos.zip", "is an archive: unpack it"),
    ],
)
def test_mistakes(given, told, folder, monkeypatch):
    (folder.parent / "empty").mkdir()
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    with pytest.raises(UsageError) as caught:
        find_pictures(given)
    assert told in str(caught.value)
    assert f"input={given}" in str(caught.value)
