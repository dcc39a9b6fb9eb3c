"""Pictures with labels in a table."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.datasets.picture_table import PictureTable
from headstart.errors import UsageError


def pictures(folder: Path, number: int, ending: str = ".png") -> list[str]:
    """Names of new pictures, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"p{i:02d}{ending}" for i in range(number)]
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name, format="PNG")
    return names


def put(file: Path, *rows: tuple) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return file


def ready(root: Path, **options) -> PictureTable:
    data = PictureTable(root=str(root), num_workers=0, **options)
    data.setup()
    data.connect(torch.Tensor.contiguous, torch.Tensor.contiguous)
    return data


def refusal(root: Path, **options) -> str:
    with pytest.raises(UsageError) as caught:
        ready(root, **options)
    return str(caught.value)


def labelled(names: list[str]) -> list[tuple[str, str]]:
    return [(name, ("cat", "dog")[i % 2]) for i, name in enumerate(names)]


@pytest.mark.parametrize("header", [(), (("image", "label"),), (("photo_of", "animal"),)])
def test_a_table_without_settings(tmp_path, header):
    names = pictures(tmp_path, 20)
    data = ready(put(tmp_path / "labels.csv", *header, *labelled(names)))
    assert data.classes == ["cat", "dog"]
    assert sorted(data.samples.names) == names
    assert sum(data.num_samples.values()) == 20
    assert data.num_samples["val"] >= 2
    position = data.samples.names.index("p07.png")
    assert data.samples.classes[data.samples.targets[position]] == "dog"
    assert data.samples.load(position).shape == (3, 8, 8)


def test_a_folder_of_tables_and_of_pictures_whose_names_lack_the_ending(tmp_path):
    names = pictures(tmp_path / "images", 12, ".jpg")
    rows = [(i, Path(name).stem, label) for i, (name, label) in enumerate(labelled(names))]
    for file, part in (("train", rows[:8]), ("test", rows[8:])):
        put(tmp_path / f"{file}.csv", ("row", "id", "label"), *part)
    data = ready(tmp_path, images=str(tmp_path / "images"), val_fraction=0)
    assert data.num_samples == {"train": 8, "val": 0, "test": 4}
    assert refusal(tmp_path, images=str(tmp_path / "imges")).startswith(f"data.images={tmp_path / 'imges'}: no such")
    assert "give data.images=<the folder that file names are relative to>" in refusal(tmp_path)


def test_columns_of_zeros_and_ones_are_labels(tmp_path, caplog):
    caplog.set_level("INFO")
    names = pictures(tmp_path, 30)
    rows = [(name, i % 2, int(i % 3 == 0), 0 if i % 5 else 1) for i, name in enumerate(names)]
    data = ready(put(tmp_path / "labels.csv", ("file", "a", "c", "b"), *rows))
    assert data.samples.multi_label
    assert data.classes == ["a", "b", "c"]
    position = data.samples.names.index("p15.png")
    assert data.samples.targets[position] == [1, 1, 1]
    assert "the file name is in column 'file', the labels in 3 columns" in caplog.text
    one = ready(tmp_path / "labels.csv", label_column="a")
    assert not one.samples.multi_label
    assert one.classes == ["0", "1"]


def test_separated_labels(tmp_path):
    names = pictures(tmp_path, 20)
    rows = [(name, ("red; round", "round", "")[i % 3]) for i, name in enumerate(names)]
    data = ready(put(tmp_path / "labels.csv", ("image", "labels"), *rows), label_separator=";")
    assert data.classes == ["red", "round"]
    assert data.samples.targets[data.samples.names.index("p02.png")] == [0, 0]


@pytest.mark.parametrize("given", [None, "part"])
def test_a_column_of_splits(tmp_path, given, caplog):
    names = pictures(tmp_path, 12)
    rows = [(*pair, ("train", "valid", "Test")[min(i // 4, 2)]) for i, pair in enumerate(labelled(names))]
    file = put(tmp_path / "labels.csv", ("image", "label", given or "split"), *rows)
    data = ready(file, split_column=given)
    assert data.num_samples == {"train": 4, "val": 4, "test": 4}
    assert [data.samples.names[i] for i in data.splits["test"]] == names[8:]
    put(file, ("image", "label", given or "split"), *rows, ("p00.png", "cat", "later"))
    if given:
        ready(file, split_column=given)
        assert "labels.csv:14: split 'later', which is none of train, val, test" in caplog.text
    else:
        assert "labels.csv:14" in ready(file).bad
        put(file, ("image", "label", "split"), *[(*row[:2], f"part {i}") for i, row in enumerate(rows)])
        assert ready(file).brought == {"train"}, "a column that happens to have this name"


def test_groups_stay_together(tmp_path):
    names = pictures(tmp_path, 40)
    rows = [(*pair, f"patient {i // 4}") for i, pair in enumerate(labelled(names))]
    file = put(tmp_path / "labels.csv", ("image", "label", "patient"), *rows)
    data = ready(file, group_by="patient", val_fraction=0.2)
    where = {}
    for split, indices in data.splits.items():
        for index in indices:
            where.setdefault(data.samples.groups[index], set()).add(split)
    assert len(where) == 10
    assert all(len(splits) == 1 for splits in where.values())
    assert data.num_samples["val"] == 8
    assert "did you mean 'patient'" in refusal(file, group_by="patent")
    put(file, ("image", "label", "patient"), *rows[:-1], (*rows[-1][:2], ""))
    assert ready(file, group_by="patient").bad == {"labels.csv:41": "empty group"}


def test_each_row_that_cannot_be_used_is_named(tmp_path, caplog):
    names = pictures(tmp_path, 12)
    (tmp_path / "p03.png").write_bytes(b"no picture")
    rows = [
        *labelled(names),
        ("gone.png", "cat"),
        ("p00.png", "dog"),
        ("p01.png", "dog"),
        ("p02.png", ""),
        ("p04.png",),
    ]
    data = ready(put(tmp_path / "labels.csv", ("image", "label"), *rows))
    contradiction = "the labels of its picture differ: cat in line 2, dog in line 15"
    assert data.bad == {
        "labels.csv:2": contradiction,
        "labels.csv:5": "p03.png: not a picture (text?)",
        "labels.csv:14": f"no file {tmp_path / 'gone.png'}",
        "labels.csv:15": contradiction,
        "labels.csv:17": "empty label",
        "labels.csv:18": "1 columns in place of 2",
    }
    assert len(data.samples) == 10
    assert "6 of 16 rows cannot be used" in caplog.text
    assert "labels.csv:5: p03.png: not a picture (text?)" in refusal(tmp_path / "labels.csv", on_bad="error")


def test_labels_that_training_does_not_have(tmp_path):
    names = pictures(tmp_path, 12)
    put(tmp_path / "train.csv", ("image", "label"), *labelled(names[:8]))
    put(tmp_path / "test.csv", ("image", "label"), *labelled(names[8:11]), (names[11], "dgo"))
    told = "test.csv:5: the label 'dgo' (1 rows), which train does not have, did you mean 'dog'?"
    assert refusal(tmp_path).startswith(told)
    assert "which the model does not have" in refusal(tmp_path / "test.csv", classes=["cat", "dog"])


def test_a_picture_in_two_tables_is_a_leak_that_is_reported(tmp_path, caplog):
    names = pictures(tmp_path, 10)
    put(tmp_path / "train.csv", ("image", "label"), *labelled(names))
    put(tmp_path / "test.csv", ("image", "label"), *labelled(names[:4]))
    data = ready(tmp_path, val_fraction=0)
    assert "4 samples with identical content are in two splits" in caplog.text
    assert "p00.png (test.csv:2)" in data.samples.names


def test_columns_that_look_alike_are_asked_about(tmp_path):
    names = pictures(tmp_path, 12)
    rows = [(i, name, name, "ab"[i % 2]) for i, name in enumerate(names)]
    told = refusal(put(tmp_path / "labels.csv", ("id", "left", "right", "label"), *rows))
    assert "Type data.image_column=<column with the file name>" in told
    rows[3] = (3, "", "", "b")
    put(tmp_path / "labels.csv", ("id", "photo", "label"), *[(i, name, label) for i, name, _, label in rows])
    data = ready(tmp_path / "labels.csv")
    assert data.columns.sample == "photo", "an empty cell does not hide that the column has file names"
    assert list(data.bad) == ["labels.csv:5"]
    places = [(name, i % 5, i % 3, label) for i, name, _, label in rows if name]
    assert "data.label_column=" in refusal(put(tmp_path / "labels.csv", ("file", "x", "y", "kind"), *places))


def test_file_names_of_other_systems(tmp_path):
    pictures(tmp_path / "a", 12, ".JPG")
    rows = [(f"a\\p{i:02d}.JPG" if i % 2 else f"a/p{i:02d}", "ab"[i % 2]) for i in range(12)]
    rows.append(("x" * 5000, "a"))
    data = ready(put(tmp_path / "labels.csv", ("image", "label"), *rows))
    assert len(data.samples) == 12
    assert list(data.bad) == ["labels.csv:14"]


def test_pictures_outside_the_folder_of_the_table_are_named_once(tmp_path, caplog):
    """A table of a stranger could show private files; in one's own, such paths are usual."""
    root, private = tmp_path / "data", tmp_path / "private"
    names = pictures(root / "images", 8)
    others = pictures(private, 12)[8:]
    (root / "images" / "link.png").symlink_to(private / others[2])
    rows = labelled([f"images/{name}" for name in names])
    put(root / "train.csv", ("image", "label"), *rows)
    ready(root, val_fraction=0)
    ready(root / "train.csv")
    assert "lie outside" not in caplog.text
    outside = [f"../private/{others[0]}", str(private / others[1]), "images/link.png"]
    put(root / "test.csv", ("image", "label"), *labelled(outside))
    assert len(ready(root, val_fraction=0).samples) == 11
    told = f"3 samples lie outside data.root={root}, such as {private / others[0]}. If the data come from somebody else"
    assert caplog.text.count("lie outside") == 1
    assert told in caplog.text
    caplog.clear()
    put(root / "train.csv", ("image", "label"), *labelled([str(private / f"p{i:02d}.png") for i in range(12)]))
    ready(root / "train.csv", images=str(private))
    assert "lie outside" not in caplog.text, "the person has named this folder"


def test_a_header_above_true_and_false(tmp_path):
    names = pictures(tmp_path, 12)
    rows = [(name, "true" if i % 2 else "false", "False" if i % 3 else "True") for i, name in enumerate(names)]
    data = ready(put(tmp_path / "labels.csv", *rows), label_column=[1, 2])
    assert len(data.samples) == 12
    assert data.classes == ["1", "2"]


def test_tables_of_two_formats(tmp_path):
    names = pictures(tmp_path, 12)
    lines = [f'{{"image": "{name}", "label": "{label}"}}\n' for name, label in labelled(names[:8])]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    put(tmp_path / "test.csv", ("label", "image"), *[(label, name) for name, label in labelled(names[8:])])
    assert ready(tmp_path, val_fraction=0).num_samples == {"train": 8, "val": 0, "test": 4}


def test_labels_with_the_sign_between_labels_are_refused(tmp_path):
    names = pictures(tmp_path, 12)
    rows = [(name, i % 2, (i + 1) % 2) for i, name in enumerate(names)]
    assert "'a|b' has a '|'" in refusal(put(tmp_path / "labels.csv", ("image", "a|b", "c"), *rows))


def test_json_lines(tmp_path):
    names = pictures(tmp_path, 12)
    lines = [f'{{"file_name": "{name}", "label": "{label}"}}\n' for name, label in labelled(names)]
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    assert len(ready(tmp_path / "metadata.jsonl").samples) == 12


@pytest.mark.real
def test_solar_cells_need_no_settings(real):
    data = ready(real / "data/solar_cells")
    assert data.classes == ["certain", "defective", "polycrystalline", "suspect"]
    assert data.num_samples["test"] == 656
    assert data.num_samples["train"] + data.num_samples["val"] == 1968
    assert not data.bad


def test_numbers_of_pictures(tmp_path):
    names = pictures(tmp_path, 8)
    rows = [(name, i / 4, 8 - i) for i, name in enumerate(names)]
    file = put(tmp_path / "n.csv", ("image", "age", "size"), *rows, (names[0], 5, 5), ("p01.png", 0.250, 7))
    data = ready(file, label_column=["age", "size"], numbers=True, val_fraction=0, test_fraction=0)
    assert data.classes == ["age", "size"]
    assert data.samples.targets == [[i / 4, 8.0 - i] for i in range(1, 8)]  # p00 has two values, p01 the same twice
    assert "n.csv:2" in data.bad
    assert "0.0|8.0 in line 2, 5.0|5.0 in line 10" in data.bad["n.csv:2"]


def test_numbers_that_are_swapped_are_not_the_same(tmp_path):
    names = pictures(tmp_path, 3)
    file = put(
        tmp_path / "n.csv", ("image", "a", "b"), (names[0], 1, 2), (names[0], 2, 1), (names[1], 1, 1), (names[2], 3, 2)
    )
    data = ready(file, label_column=["a", "b"], numbers=True, val_fraction=0, test_fraction=0)
    assert data.samples.names == names[1:]
