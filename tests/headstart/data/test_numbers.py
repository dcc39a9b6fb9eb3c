"""Samples, splits and tables with numbers instead of classes."""

import numpy as np
import pytest
import torch

from headstart.data.samples import Samples, pool
from headstart.data.split_file import read_split_file, write_split_file
from headstart.data.splits import SplitPlan
from headstart.datasets.fake import Fake
from headstart.datasets.text_table import TextTable
from headstart.errors import UsageError

DEFAULTS = {
    "val_fraction": 0.2, "test_fraction": 0.2, "train_fraction": 1.0, "shots_per_class": None, "fold": None,
    "num_folds": None, "seed": 0,
}  # fmt: skip


def samples(values, names=("age",)) -> Samples:
    return Samples([f"{i:04d}" for i in range(len(values))], values, list(names), str, numbers=True)


def spread(count=200) -> Samples:
    return samples([[float(value)] for value in np.random.default_rng(0).lognormal(3, 1, count)])


def assign(data, **given):
    return SplitPlan(**(DEFAULTS | given)).assign(data, {"train": list(range(len(data)))})


def test_every_split_has_low_and_high_numbers():
    data = spread()
    found = assign(data)
    assert sorted(index for indices in found.values() for index in indices) == list(range(200))
    assert [len(found[split]) for split in ("train", "val", "test")] == [120, 40, 40]
    ranks = np.argsort(np.argsort([value for (value,) in data.targets]))
    assert np.bincount(ranks[found["test"]] // 20).tolist() == [4] * 10
    assert np.bincount(ranks[found["val"]] // 20, minlength=10).min() >= 2


def test_folds_and_shares():
    data = spread(100)
    folds = [assign(data, fold=fold, num_folds=5, test_fraction=0)["val"] for fold in range(5)]
    assert sorted(index for fold in folds for index in fold) == list(range(100))
    assert len(assign(data, train_fraction=0.5)["train"]) == 30
    with pytest.raises(UsageError, match=r"data\.num_folds=5: there are only 3 samples"):
        assign(spread(3), fold=0, num_folds=5, test_fraction=0)


@pytest.mark.parametrize(("groups", "size"), [(10, 20), (12, 40), (30, 10)])
def test_groups_with_one_number_each_are_cut(groups, size):
    """The age of a patient is the same in all pictures."""
    data = samples([[float(group)] for group in range(groups) for _ in range(size)])
    data.groups = [f"g{group}" for group in range(groups) for _ in range(size)]
    found = assign(data)
    assert found["val"]
    assert found["test"]
    folds = [assign(data, fold=fold, num_folds=5, test_fraction=0)["val"] for fold in range(5)]
    assert sorted(index for fold in folds for index in fold) == list(range(groups * size))
    assert min(map(len, folds)) > 0.5 * groups * size / 5


def test_numbers_too_close_together_for_single_precision_are_refused():
    with pytest.raises(UsageError, match="subtract a constant from the column"):
        pool({"train": samples([[1.7e9 + value] for value in range(10)])})


def test_a_single_number_may_have_another_name():
    joined, _ = pool({"val": samples([[1.0], [2.0]], ("years",))}, ["age"])
    assert joined.targets == [[1.0], [2.0]]


def test_few_samples_are_cut_too():
    found = assign(spread(10))
    assert [len(found[split]) for split in ("train", "val", "test")] == [6, 2, 2]


def test_a_split_file_is_read_again(tmp_path):
    data = spread(30)
    found = assign(data)
    write_split_file(tmp_path / "split.csv", data, found)
    assert read_split_file(tmp_path / "split.csv", data) == found
    assert f",{data.targets[found['train'][0]][0]:.7g}," in (tmp_path / "split.csv").read_text()


def test_numbers_are_matched_by_name():
    parts = {"train": samples([[1.0, 2.0], [3.0, 5.0]], ("a", "b")), "val": samples([[20.0, 10.0]], ("b", "a"))}
    parts["val"].names = ["v"]
    joined, _ = pool(parts)
    assert joined.numbers
    assert not joined.multi_label
    assert joined.targets[2] == [10.0, 20.0]
    parts["val"].classes = ["b", "c"]
    with pytest.raises(UsageError, match="val has no number 'a', which train has"):
        pool(parts)


@pytest.mark.parametrize("target", [[float("nan")], [1.0, 2.0]])
def test_a_target_that_is_no_row_of_finite_numbers_is_a_mistake_of_the_data_set(target):
    with pytest.raises(ValueError, match="must give a list of 1 finite numbers"):
        pool({"train": samples([[1.0], target])})


def test_a_number_that_never_changes_is_refused():
    with pytest.raises(UsageError, match="the number 'b' has the same value in all 2 training samples"):
        pool({"train": samples([[1.0, 4.0], [2.0, 4.0]], ("a", "b"))})


def test_generated_pictures_show_their_numbers():
    data = Fake(num_workers=0, num_samples=40, num_classes=1, image_size=16, numbers=True)
    data.setup()
    data.connect(torch.Tensor.contiguous, torch.Tensor.contiguous)
    inputs, targets = next(iter(data.val_dataloader()))
    assert targets.dtype == torch.float32
    assert targets.shape == (len(inputs), 1)
    shown = [data.samples.load(index).float().mean().item() for index in range(40)]
    assert np.corrcoef(shown, [value for (value,) in data.samples.targets])[0, 1] > 0.98


def table(tmp_path, text, name="t.csv", **options) -> TextTable:
    (tmp_path / name).write_text(text)
    data = TextTable(root=str(tmp_path / name), num_workers=0, val_fraction=0, test_fraction=0, numbers=True, **options)
    data.setup()
    return data


def test_a_table_with_a_number_per_text(tmp_path):
    data = table(tmp_path, "text,label\n" + "".join(f"text {i},{i / 2}\n" for i in range(8)))
    assert data.classes == ["label"]
    assert data.samples.targets == [[i / 2] for i in range(8)]
    assert data.samples.names[0] == "t.csv:2"


def test_the_number_is_found_and_the_header_too(tmp_path):
    data = table(tmp_path, "words\tgrade\n" + "".join(f"a text {i}\t{i}.5\n" for i in range(4)), "t.tsv")
    assert data.classes == ["grade"]
    assert len(data.samples) == 4
    data = table(tmp_path, "".join(f"a text {i}\t{i}.5\n" for i in range(4)), "u.tsv")
    assert data.classes == ["1"]
    assert len(data.samples) == 4


def test_several_columns_hold_several_numbers(tmp_path):
    rows = "".join(f"text {i},{i},{-i}\n" for i in range(4))
    data = table(tmp_path, f"text,up,down\n{rows}", label_column=["up", "down"])
    assert data.classes == ["up", "down"]
    assert data.samples.targets[3] == [3.0, -3.0]
    data = table(tmp_path, rows, "v.csv", text_column=0, label_column=[1, 2])
    assert len(data.samples) == 4, "the first row is no header"


def test_a_row_whose_label_is_no_finite_number_is_left_out_with_its_line(tmp_path):
    text = "text,label\none,1\ntwo,many\nthree,nan\nfour,4\nfive,\n"
    data = table(tmp_path, text)
    assert data.samples.targets == [[1.0], [4.0]]
    assert data.bad == {
        "t.csv:3": "'many' in the column label, which is no finite number",
        "t.csv:4": "'nan' in the column label, which is no finite number",
        "t.csv:6": "'' in the column label, which is no finite number",
    }
    with pytest.raises(UsageError, match="many"):
        table(tmp_path, text, on_bad="error")


def test_a_number_beyond_single_precision_is_a_bad_row(tmp_path):
    text = "text,score\n" + "".join(f"text {i},{i}\n" for i in range(10)) + "odd,1e39\n"
    data = table(tmp_path, text)
    assert list(data.bad) == ["t.csv:12"]


def test_a_column_that_is_named_twice_is_refused(tmp_path):
    text = "text,score\n" + "".join(f"text {i},{i}\n" for i in range(10))
    with pytest.raises(UsageError, match="names a column twice"):
        table(tmp_path, text, label_column=["score", "score"])


def test_a_separator_is_for_labels(tmp_path):
    with pytest.raises(UsageError, match=r"data\.label_separator is for labels"):
        table(tmp_path, "text,label\na,1\n", label_separator=";")
