import pytest

from headstart.data.samples import Samples
from headstart.data.split_file import read_split_file, write_split_file
from headstart.errors import UsageError


def samples(number: int) -> Samples:
    return Samples([f"{i:04d}" for i in range(number)], [i % 2 for i in range(number)], ["c0", "c1"], str)


def test_written_and_read(tmp_path):
    data = samples(40)
    data.names = [*data.names[:-3], 'a "quoted", name.jpg', "zwei\nZeilen ü.jpg", "not utf-8 \udcff.jpg"]
    assigned = {"train": list(range(2, 40)), "val": [1], "test": [0]}
    write_split_file(tmp_path / "new" / "split.csv", data, assigned)
    assert read_split_file(tmp_path / "new" / "split.csv", data) == assigned
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["split.csv"]  # no temporary file is left


def test_file_says_which_class(tmp_path):
    data = Samples(["x", "y"], [[1, 1, 0], [0, 0, 0]], ["a", "b", "c"], str)
    write_split_file(tmp_path / "split.csv", data, {"train": [1], "val": [0], "test": []})
    assert (tmp_path / "split.csv").read_text().split() == ["split,name,class,digest", "train,y,,", "val,x,a|b,"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "split,name,class\ntrain,gone.jpg,c0\nval,away.jpg,c0\n",
            r"none of the 2 samples of .*split\.csv is in the data set, such as gone\.jpg: give data\.root=",
        ),
        ("split,name,class\ntrain,0000,c0\nval,0000,c0\n", "line 3: 0000 is there twice"),
        ("split,name,class\ntrian,0000,c0\n", "line 2: split 'trian' is not one of train, val, test"),
        ("0000,train\n", "does not have the columns split, name, class, digest: restore the file"),
        ("", "does not have the columns"),
    ],
)
def test_file_that_does_not_fit(tmp_path, content, message):
    (tmp_path / "split.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_split_file(tmp_path / "split.csv", samples(4))


def test_samples_that_are_gone_are_left_out_and_the_others_stay(tmp_path, caplog):
    """New splits would mix training samples into the test."""
    data = samples(6)
    assigned = {"train": [0, 3, 4], "val": [1], "test": [2, 5]}
    write_split_file(tmp_path / "split.csv", data, assigned)
    fewer = Samples(data.names[1:5], data.targets[1:5], data.classes, str)
    found = read_split_file(tmp_path / "split.csv", fewer)
    where = {split: [fewer.names[i] for i in indices] for split, indices in found.items()}
    assert where == {"train": ["0003", "0004"], "val": ["0001"], "test": ["0002"]}
    assert "2 of 6 samples of" in caplog.text
    assert "such as 0000: they are left out, the others keep their splits" in caplog.text


def test_samples_are_known_by_content_then_by_name(tmp_path, caplog):
    caplog.set_level("INFO")
    written = Samples(["a", "b", "c", "d"], [0, 0, 0, 0], ["x", "y"], str, ["1", "2", "3", "4"])
    write_split_file(tmp_path / "split.csv", written, {"train": [0], "val": [1], "test": [2, 3]})
    # a and b have changed places, c has another name, d other content; c is a new file
    now = Samples(["a", "b", "c", "new", "d"], [0] * 5, ["x", "y"], str, ["2", "1", "9", "3", "8"])
    assert read_split_file(tmp_path / "split.csv", now) == {"train": [1], "val": [0], "test": [3, 4]}
    assert "3 samples have other names now, such as a = b: they keep their splits" in caplog.text


def test_two_samples_of_the_same_content_are_told_apart_by_name(tmp_path):
    written = Samples(["a", "b"], [0, 0], ["x", "y"], str, ["1", "1"])
    write_split_file(tmp_path / "split.csv", written, {"train": [0], "val": [1], "test": []})
    now = Samples(["b", "c"], [0, 0], ["x", "y"], str, ["1", "1"])
    assert read_split_file(tmp_path / "split.csv", now) == {"train": [1], "val": [0], "test": []}


def test_file_edited_with_excel(tmp_path):
    (tmp_path / "split.csv").write_bytes(b"\xef\xbb\xbfsplit,name,class\r\nval,0001,c0\r\n")
    assert read_split_file(tmp_path / "split.csv", samples(4)) == {"train": [], "val": [1], "test": []}
