import csv

import pytest

from headstart.datasets.text_folder import TextFolder
from headstart.errors import UsageError
from headstart.inputs.text.files import digest


def put(root, *files: str):
    """Files with different texts."""
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(f"text {number}")
    return root


def some(pattern: str, count: int = 4) -> list[str]:
    return [pattern.format(i) for i in range(count)]


def ready(root, **options) -> TextFolder:
    data = TextFolder(root=str(root), num_workers=0, **options)
    data.setup()
    return data


def refusal(root, **options) -> str:
    with pytest.raises(UsageError) as caught:
        ready(root, **options)
    return str(caught.value)


def test_split_folders(tmp_path):
    files = [*some("train/pos/{}.txt"), *some("train/neg/{}.TXT"), *some("test/pos/{}.txt"), "test/neg/a/b.txt"]
    data = ready(put(tmp_path, *files), val_fraction=0)
    assert data.classes == ["neg", "pos"]
    assert data.num_samples == {"train": 8, "val": 0, "test": 5}
    for index, name in enumerate(data.samples.names):
        text = (tmp_path / name).read_text()
        assert data.samples.load(index) == text
        assert data.samples.digests[index] == digest(text)
        assert data.classes[data.samples.targets[index]] == name.split("/")[1]


def test_class_folders_are_cut_into_splits(tmp_path, caplog):
    data = ready(put(tmp_path, *some("pos/{}.txt", 20), *some("neg/{}.txt", 20), "notes.txt", "pos/more.pdf"))
    assert data.num_samples == {"train": 28, "val": 6, "test": 6}
    assert "texts in no class folder, which are not used: 1" in caplog.text


def test_the_layout_of_aclimdb(tmp_path, caplog):
    caplog.set_level("INFO")
    folders = ["train/pos", "train/neg", "train/unsup", "test/pos", "test/neg"]
    files = [file for folder in folders for file in some(f"{folder}/{{}}_7.txt")]
    data = ready(put(tmp_path, *files, "README", "imdb.vocab", "train/urls_pos.txt", "train/labeledBow.feat"))
    assert data.classes == ["neg", "pos"]
    assert data.num_samples == {"train": 6, "val": 2, "test": 8}
    assert "train: not used, because the texts have no labels: 'unsup'" in caplog.text


def test_texts_that_cannot_be_read(tmp_path, caplog):
    root, run = put(tmp_path / "data", *some("a/{}.txt"), *some("b/{}.txt")), tmp_path / "run"
    (root / "a/bad.txt").write_bytes(b"caf\xe9")
    (root / "b/empty.txt").write_text(" \n")
    data = ready(root, split_file=str(run / "split.csv"), val_fraction=0)
    assert len(data.samples) == 8
    expected = [["a/bad.txt", "not UTF-8 (byte 3)"], ["b/empty.txt", "empty"]]
    assert list(csv.reader((run / "bad_files.csv").open())) == [["name", "reason"], *expected]
    assert "2 of 10 texts cannot be used:\n  a/bad.txt: not UTF-8 (byte 3)\n  b/empty.txt: empty" in caplog.text
    assert refusal(root, on_bad="error").endswith("data.on_bad=leave_out")


def test_copies_are_in_one_split(tmp_path, caplog):
    root = put(tmp_path, *some("a/{}.txt", 20), *some("b/{}.txt", 20))
    for i in range(20):
        (root / "a" / f"copy{i}.txt").write_text("copy")
    assert len(ready(root).samples) == 60
    assert "identical content" not in caplog.text


def test_roots_that_cannot_be_used(tmp_path):
    (tmp_path / "x.tsv").write_text("a\tb\n")
    assert "type data=text_table data.root=" in refusal(tmp_path / "x.tsv")
    assert "no such folder, did you mean 'x.tsv'?" in refusal(tmp_path / "x.ts")
    assert "put the texts into" in refusal(put(tmp_path / "flat", "a.txt"))
    message = refusal(put(tmp_path / "pdf", "a/1.pdf", "b/1.pdf", "b/1"))
    assert message.endswith("has no texts in its class folders: texts need the ending .txt (other files there: 3)")
