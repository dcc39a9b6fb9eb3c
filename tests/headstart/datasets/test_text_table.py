import csv
import json
from collections import Counter

import pytest

from headstart.datasets.text_table import TextTable
from headstart.errors import UsageError
from headstart.inputs.text.files import digest

WORDS = {"pos": "good", "neg": "bad", "odd": "strange"}


def lines(count=10, classes=("pos", "neg"), start=0) -> list[tuple[str, str]]:
    return [(f"a {WORDS[name]} film {i}", name) for i in range(start, start + count) for name in classes]


def put(path, rows, header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    between = "," if path.suffix == ".csv" else "\t"
    path.write_text("".join(f"{between.join(row)}\n" for row in ([header] if header else []) + list(rows)))
    return path


def ready(root, **options) -> TextTable:
    data = TextTable(root=str(root), num_workers=0, **options)
    data.setup()
    return data


def refusal(root, **options) -> str:
    with pytest.raises(UsageError) as caught:
        ready(root, **options)
    return str(caught.value)


def names(data, split):
    return [data.samples.names[index] for index in data.splits[split]]


@pytest.mark.parametrize("header", [None, ("text", "label")])
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".txt"])
def test_one_file_is_cut_into_splits(tmp_path, suffix, header):
    data = ready(put(tmp_path / f"all{suffix}", lines(20), header))
    assert data.classes == ["neg", "pos"]
    assert data.num_samples == {"train": 28, "val": 6, "test": 6}
    for index, (text, label) in enumerate(lines(20)):
        assert data.samples.names[index] == f"all{suffix}:{index + (2 if header else 1)}"
        assert data.samples.load(index) == text
        assert data.classes[data.samples.targets[index]] == label
        assert data.samples.digests[index] == digest(text)


def test_one_file_per_split(tmp_path):
    put(tmp_path / "train.tsv", lines(10))
    put(tmp_path / "dev.csv", lines(3, start=20))
    with (tmp_path / "test_set.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in lines(4, start=30))
    put(tmp_path / "unlabelled.txt", [("a", "b")])
    data = ready(tmp_path)
    assert data.num_samples == {"train": 20, "val": 6, "test": 8}
    assert names(data, "val")[0] == "dev.csv:1"
    assert data.samples.load(data.splits["test"][0]) == "a good film 30"


def test_the_columns_of_the_other_files_are_found_by_name(tmp_path):
    put(tmp_path / "train.csv", lines(10), ("sentence", "label"))
    put(tmp_path / "test.csv", [(b, "x", a) for a, b in lines(3, start=20)], ("label", "id", "sentence"))
    data = ready(tmp_path)
    assert data.samples.load(data.splits["test"][0]) == "a good film 20"
    put(tmp_path / "test.csv", [(str(i), text) for i, (text, _) in enumerate(lines(3))], ("index", "sentence"))
    message = refusal(tmp_path)
    assert "data.label_column=label:" in message
    assert "test.csv has no such column" in message
    assert message.endswith("if its samples have no labels, rename it to unlabelled_test.csv")
    (tmp_path / "test.csv").rename(tmp_path / "unlabelled_test.csv")
    assert ready(tmp_path).brought == {"train"}


def test_a_file_beside_other_splits(tmp_path, caplog):
    caplog.set_level("INFO")
    put(tmp_path / "train.tsv", lines(10))
    put(tmp_path / "dev.tsv", lines(10, start=20))
    assert ready(tmp_path / "train.tsv").brought == {"train"}
    assert f"To use dev.tsv as splits, type data.root={tmp_path}" in caplog.text
    caplog.clear()
    put(tmp_path / "reviews.tsv", lines(10))
    ready(tmp_path / "reviews.tsv")
    assert "data.root" not in caplog.text


@pytest.mark.parametrize(
    ("files", "root", "message"),
    [
        (["train.tsv", "train.csv"], "", "train.tsv are both the train split: keep one"),
        (["reviews.tsv"], "", "has no table train, val or test .* but 'reviews.tsv': give one of them, .*/reviews.tsv"),
        (["a/b/1.tsv"], "", "type data=text_folder data.root="),
        (["trai.tsv"], "train.tsv", r"train.tsv: no such file or folder, did you mean 'trai.tsv'\?"),
        (["x.zip"], "x.zip", "is an archive: unpack it"),
        (["x.xlsx"], "x.xlsx", "x.xlsx is no table: give a file that ends in"),
    ],
)
def test_roots_that_cannot_be_used(tmp_path, files, root, message):
    import re

    for file in files:
        put(tmp_path / "root" / file, lines(5))
    assert re.search(message, refusal(tmp_path / "root" / root))


def test_other_tables_are_named(tmp_path, caplog):
    for name in ("train.tsv", "more.tsv", "unlabelled_texts.tsv"):
        put(tmp_path / name, lines(10))
    ready(tmp_path)
    assert "not used, because they are no split: 'more.tsv'" in caplog.text


def test_rows_that_cannot_be_used(tmp_path, caplog):
    file = put(tmp_path / "train.tsv", [*lines(10), ("", "pos"), (" ", "pos"), ("no label", " "), ("three", "a", "b")])
    with file.open("ab") as stream:
        stream.write(b"caf\xe9\tpos\n")
    run = tmp_path / "run"
    data = ready(file, split_file=str(run / "split.csv"))
    assert len(data.samples) == 20
    expected = [
        ["train.tsv:21", "empty text"], ["train.tsv:22", "empty text"], ["train.tsv:23", "empty label"],
        ["train.tsv:24", "3 columns in place of 2"], ["train.tsv:25", "not UTF-8"],
    ]  # fmt: skip
    assert list(csv.reader((run / "bad_files.csv").open())) == [["name", "reason"], *expected]
    assert "5 of 25 rows cannot be used:\n  train.tsv:21: empty text\n" in caplog.text
    message = refusal(file, on_bad="error")
    assert message.startswith("5 of 25 rows cannot be used:")
    assert message.endswith("data.on_bad=leave_out")
    (run / "bad_files.csv").unlink()
    put(file, [*lines(10), *[("", "pos")] * 12])
    caplog.clear()
    ready(file)
    assert "train.tsv:30: empty text\n  ... and 2 more" in caplog.text


def test_no_usable_row(tmp_path):
    assert "x.tsv has no row that can be used" in refusal(put(tmp_path / "x.tsv", []))
    assert "x.tsv has no row that can be used" in refusal(put(tmp_path / "x.tsv", [], ("text", "label")))
    rows = [("a", ""), ("", "a"), ("", "b")]
    message = refusal(put(tmp_path / "x.tsv", rows, ("text", "label")))
    assert message.endswith("x.tsv has no row that can be used (2 rows, such as line 3: empty text)")
    (tmp_path / "x.csv").write_bytes(b"text,label\ncaf\xe9,a\n")
    assert refusal(tmp_path / "x.csv").endswith("(line 2: not UTF-8; save the file as UTF-8)")


def test_labels_are_names(tmp_path):
    data = ready(put(tmp_path / "x.tsv", [(f"text {i}", ("1", "01", "1.0", " 1 ")[i % 4]) for i in range(40)]))
    assert data.classes == ["01", "1", "1.0"]
    assert sum(map(sum, map(data.class_counts, ("train", "val", "test")))) == 40


def test_several_label_columns(tmp_path):
    rows = [(f"text {i}", str(i % 2), ("true", "FALSE", "1.0")[i % 3]) for i in range(30)]
    file = put(tmp_path / "x.csv", [*rows, ("text", "2", "1")], ("text", "z", "b"))
    data = ready(file, label_column=["z", "b"])
    assert data.samples.multi_label
    assert data.classes == ["b", "z"]
    assert data.samples.targets[:3] == [[1, 0], [0, 1], [1, 0]]
    assert data.bad == {"x.csv:32": "'2' in the label column z, which is neither 0 nor 1"}
    data = ready(put(file, rows), text_column=0, label_column=[1, 2])
    assert data.classes == ["1", "2"]


def test_several_labels_in_one_column(tmp_path):
    rows = [(f"text {i}", ("a; b", "b;", "", "a;a")[i % 4]) for i in range(40)]
    data = ready(put(tmp_path / "x.tsv", rows, ("text", "labels")), label_separator=";")
    assert data.classes == ["a", "b"]
    assert data.samples.targets[:4] == [[1, 1], [0, 1], [0, 0], [1, 0]]
    assert refusal(tmp_path / "x.tsv", label_separator="").startswith("data.label_separator=''")


def test_lists_of_labels(tmp_path):
    labels = (["a", "b;c"], ["b;c", " b;c "], [], [1, 2.5], None, "a; b", [["a"]], [None])
    file = tmp_path / "x.jsonl"
    rows = [json.dumps({"text": f"text {i}", "labels": labels[i % 8]}) for i in range(80)]
    file.write_text("\n".join(rows))
    data = ready(file, label_separator=";")
    assert data.classes == ["1", "2.5", "a", "b", "b;c"]
    assert data.samples.targets[:6] == [
        [0, 0, 1, 0, 1], [0, 0, 0, 0, 1], [0] * 5, [1, 1, 0, 0, 0], [0] * 5, [0, 0, 1, 1, 0]
    ]  # fmt: skip
    assert data.bad["x.jsonl:7"] == "a list of labels that holds more than texts and numbers"
    assert len(data.bad) == 20
    message = refusal(file)
    assert "x.jsonl, line 1, column 'labels': the labels are lists" in message
    assert message.endswith("type task=multilabel 'data.label_separator=\";\"'")


def test_lists_of_labels_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    columns = {"text": [f"text {i}" for i in range(40)], "labels": [["a", "b"], ["b"], None, []] * 10}
    write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    assert ready(tmp_path / "x.parquet", label_separator=";").samples.targets[:4] == [[1, 1], [0, 1], [0, 0], [0, 0]]
    assert "x.parquet, row 1, column 'labels': the labels are lists" in refusal(tmp_path / "x.parquet")


def test_one_list_among_labels_is_a_bad_row(tmp_path):
    rows = [{"text": f"text {i}", "label": ["a"] if i == 5 else "ab"[i % 2]} for i in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ready(tmp_path / "x.jsonl")
    assert (data.classes, list(data.bad)) == (["a", "b"], ["x.jsonl:6"])


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl"])
def test_texts_that_look_like_lists_are_names_of_classes(tmp_path, suffix):
    rows = [(f"text {i}", ("[1]", "[other")[i % 2]) for i in range(40)]
    file = put(tmp_path / "x.tsv", rows, ("text", "label"))
    if suffix == ".jsonl":
        file = tmp_path / "x.jsonl"
        file.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows))
    assert ready(file).classes == ["[1]", "[other"]


def test_nan_is_no_class(tmp_path):
    rows = [{"text": f"text {i}", "label": (1.0, 2.0, float("nan"))[i % 3]} for i in range(30)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ready(tmp_path / "x.jsonl")
    assert data.classes == ["1.0", "2.0"]
    assert set(data.bad.values()) == {"empty label"}


def test_settings_that_cannot_be(tmp_path):
    file = put(tmp_path / "x.tsv", lines(5))
    assert refusal(file, header="yes").startswith("data.header=yes: choose one of true, false, null")
    assert refusal(file, on_bad="skip").startswith("data.on_bad=skip: choose one of leave_out, error")
    assert refusal(file, label_column=[]).startswith("data.label_column=[]: give a column")


def test_a_resumed_run_finds_its_rows_when_others_were_inserted(tmp_path):
    """Also texts that are there twice; a text that has changed is found by its line."""
    file, split_file = tmp_path / "train.tsv", tmp_path / "run" / "split.csv"
    rows = [*lines(20), ("twice", "pos"), ("twice", "pos")]
    before = ready(put(file, rows), split_file=str(split_file))
    texts = {split: sorted(before.samples.load(i) for i in before.splits[split]) for split in before.splits}
    after = ready(put(file, [("new", "pos"), *rows[:7], ("newer", "neg"), *rows[7:]]), split_file=str(split_file))
    assert len(after.samples) == 44
    assert {s: sorted(after.samples.load(i) for i in after.splits[s]) for s in after.splits} == texts
    changed = ready(put(file, [("changed", "pos"), *rows[1:]]), split_file=str(split_file))
    assert changed.splits == before.splits


def test_copies_of_a_text_are_in_one_split(tmp_path, caplog):
    copies = [(f"copy {i % 10}", "pos") for i in range(40)]
    file = put(tmp_path / "x.tsv", [*lines(40), *copies])
    for options in ({}, {"num_folds": 4, "fold": 1}):
        data = ready(file, **options)
        assert sum(data.num_samples.values()) == 120
        where = {(data.samples.load(i), split) for split, indices in data.splits.items() for i in indices}
        assert max(Counter(text for text, _ in where).values()) == 1
    assert "identical content" not in caplog.text
    put(tmp_path / "test.tsv", lines(5))
    file.rename(tmp_path / "train.tsv")
    ready(tmp_path)
    assert "10 samples with identical content are in two splits" in caplog.text


def test_a_text_with_two_labels_is_reported(tmp_path, caplog):
    data = ready(put(tmp_path / "x.tsv", [*lines(20), ("same", "pos"), ("same", "neg")]))
    assert "1 samples with identical content are in two classes, the first pair is x.tsv:" in caplog.text
    assert "in two splits" not in caplog.text
    assert len(data.samples) == 42


def test_a_file_for_an_existing_model(tmp_path):
    data = ready(put(tmp_path / "new.csv", [("nice", "pos"), ("awful", "neg")]), classes=["neg", "odd", "pos"],
                 val_fraction=0, test_fraction=0)  # fmt: skip
    assert data.samples.targets == [2, 0]


@pytest.mark.real
def test_trec_needs_no_settings(real):
    folder = real / "data" / "trec6"
    if not folder.is_dir():
        pytest.skip("no data/trec6 there")
    data = ready(folder)
    assert data.classes == ["abbreviation", "description", "entity", "human", "location", "number"]
    assert data.num_samples == {"train": 4628, "val": 824, "test": 500}
    assert not data.bad


def test_settings_on_the_command_line(tmp_path, composed):
    from hydra.utils import instantiate

    from headstart.cli.check import check_config

    rows = [(f"text {i}", str(i % 2), str(i % 3 % 2)) for i in range(30)]
    file = put(tmp_path / "x.tsv", rows)
    cfg = composed("data=text_table", f"data.root={file}", "data.text_column=0", "data.label_column=[1,2]",
                   "data.header=false", "task=multilabel")  # fmt: skip
    check_config(cfg)
    data = instantiate(cfg.data)
    data.setup()
    assert data.classes == ["1", "2"]
    check_config(composed("data=text_table", f"data.root={file}", "data.label_column=y", "data.label_separator='|'"))
