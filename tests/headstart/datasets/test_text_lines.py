"""Texts without labels: lines, rows and files."""

import logging

import pytest

from headstart.datasets.text_lines import TextLines
from headstart.errors import UsageError


def texts_of(root, **options):
    data = TextLines(root=str(root), **{"test_fraction": 0.0, "val_fraction": 0.2} | options)
    data.setup()
    return data, [data.samples.load(index) for index in range(len(data.samples))]


def test_each_line_is_a_text_and_empty_lines_are_left_out(tmp_path, caplog):
    file = tmp_path / "reviews.txt"
    file.write_text("\n".join(f"text {n}" if n != 4 else " " for n in range(10)) + "\n")
    with caplog.at_level(logging.WARNING):
        data, texts = texts_of(file)
    assert texts == [f"text {n}" for n in range(10) if n != 4]
    assert data.samples.names[0] == "reviews.txt:1"
    assert data.bad == {"reviews.txt:5": "empty"}
    assert "1 of 10 texts cannot be used" in caplog.text
    assert data.classes == []
    assert data.num_samples == {"train": 7, "val": 2, "test": 0}
    with pytest.raises(UsageError, match="on_bad=leave_out"):
        texts_of(file, on_bad="error")


def test_rows_of_a_table_and_files_of_a_folder(tmp_path):
    table = tmp_path / "reviews.csv"
    table.write_text("stars,review\n" + "".join(f"{n},good {n}\n" for n in range(6)))
    assert texts_of(table)[1] == [f"good {n}" for n in range(6)]
    assert texts_of(table, text_column="stars")[1] == [str(n) for n in range(6)]
    with pytest.raises(UsageError, match=r"^data\.text_column=star: .*did you mean 'stars'"):
        texts_of(table, text_column="star")
    (tmp_path / "two.tsv").write_text("a\tb\n" * 6)
    with pytest.raises(UsageError, match=r"say which one holds the texts, data\.text_column=<name or position"):
        texts_of(tmp_path / "two.tsv")
    (tmp_path / "wide.csv").write_text("text\n" + "a,b\n" * 6)
    with pytest.raises(UsageError, match=r"data\.text_column=text: .*columns without names"):
        texts_of(tmp_path / "wide.csv", text_column="text")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for n in range(6):
        (tmp_path / "folder" / ("below" if n % 2 else ".") / f"{n}.txt").write_text(f"line\nof {n}")
    data, texts = texts_of(tmp_path / "folder")
    assert sorted(texts) == [f"line\nof {n}" for n in range(6)]
    assert "below/1.txt" in data.samples.names


def test_splits_are_random_seeded_and_keep_copies_together(tmp_path):
    file = tmp_path / "reviews.txt"
    file.write_text("".join(f"text {n % 30}\n" for n in range(60)))
    first, again, other = (texts_of(file, seed=seed)[0] for seed in (0, 0, 1))
    assert first.splits == again.splits != other.splits
    loaded = {split: {first.samples.load(index) for index in first.splits[split]} for split in ("train", "val")}
    assert not loaded["train"] & loaded["val"]


def test_the_splits_are_read_back(tmp_path):
    file = tmp_path / "reviews.txt"
    file.write_text("".join(f"text {n}\n" for n in range(10)))
    first, again = (texts_of(file, split_file=str(tmp_path / "split.csv"))[0] for _ in range(2))
    assert {s: set(found) for s, found in first.splits.items()} == {s: set(f) for s, f in again.splits.items()}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shots_per_class": 3}, "data.shots_per_class=3: the data have no labels"),
        ({"sampler": "balanced"}, "data.sampler=balanced"),
        ({"num_folds": 2, "fold": 0}, "data.num_folds=2"),
    ],
)
def test_settings_that_need_labels_are_refused(options, told, tmp_path):
    file = tmp_path / "reviews.txt"
    file.write_text("".join(f"text {n}\n" for n in range(10)))
    with pytest.raises(UsageError, match=told):
        texts_of(file, **options)


def test_a_root_without_texts_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        texts_of(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UsageError, match="one text per line"):
        texts_of(tmp_path / "empty.txt")


def test_files_behind_links_to_other_places_are_named(tmp_path, caplog):
    (tmp_path / "folder").mkdir()
    for n in range(6):
        (tmp_path / "folder" / f"{n}.txt").write_text(f"text {n}")
    texts_of(tmp_path / "folder")
    assert "data.root=" not in caplog.text
    (tmp_path / "private.txt").write_text("secret")
    (tmp_path / "folder" / "link.txt").symlink_to(tmp_path / "private.txt")
    assert "secret" in texts_of(tmp_path / "folder")[1]
    assert f"1 sample lies outside data.root={tmp_path / 'folder'}, such as {tmp_path / 'private.txt'}" in caplog.text
