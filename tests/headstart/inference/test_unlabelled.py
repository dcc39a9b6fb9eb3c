"""The samples that `input=` names."""

import pytest
import tiny_text

from headstart.errors import UsageError
from headstart.inference.unlabelled import find_samples
from headstart.inputs.base import Unlabelled
from headstart.inputs.text.preprocess import TextPreprocess


@pytest.fixture
def preprocess():
    pytest.importorskip("tokenizers")
    return TextPreprocess(tiny_text.tokenizer().to_str(), 6)


def test_tables_that_match_a_pattern_are_read_by_row_and_other_files_are_one_text(preprocess, tmp_path):
    for name, content in (("a.csv", "text\na film\na plot\n"), ("b.CSV", "text\na cast\n"), ("c.txt", "a\nb\n")):
        (tmp_path / name).write_text(content)
    found = find_samples(str(tmp_path / "*"), preprocess)
    assert [(each.name.rpartition("/")[2], each.raw) for each in found.samples] == [
        ("a.csv:2", "a film"), ("a.csv:3", "a plot"), ("b.CSV:2", "a cast"), ("c.txt", None),
    ]  # fmt: skip
    assert found.total is None
    found = find_samples(str(tmp_path / "*.txt"), preprocess)
    assert (list(found.samples), found.total) == ([Unlabelled(str(tmp_path / "c.txt"))], 1)
    named = find_samples(str(tmp_path / "c.txt"), preprocess)
    assert [each.raw for each in named.samples] == ["a", "b"], "a file that is named itself has a text per line"


@pytest.mark.parametrize(
    ("content", "message"), [("x,y\n1,2\n", "say which one holds the texts"), ("", "no text in it")]
)
def test_a_table_of_a_pattern_that_cannot_be_used_is_refused_before_the_first_sample(
    content, message, preprocess, tmp_path
):
    (tmp_path / "a.csv").write_text("text\na film\n")
    (tmp_path / "b.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        find_samples(str(tmp_path / "*.csv"), preprocess)


def test_an_archive_of_texts_is_named_as_one(preprocess, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match="is an archive: unpack it"):
        find_samples(str(tmp_path / "a.zip"), preprocess)
