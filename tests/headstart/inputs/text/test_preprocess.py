"""Texts to tokens, and texts in files, lines and tables."""

import io

import pytest
import tiny_text
import torch

from headstart.errors import UsageError
from headstart.inputs.base import Unlabelled, UnreadableInput, from_saved_form, saved_form
from headstart.inputs.text.files import Texts
from headstart.inputs.text.preprocess import TextPreprocess


@pytest.fixture(scope="module")
def preprocess():
    return TextPreprocess(tiny_text.tokenizer().to_str(), max_length=6)


def test_tokens_are_cut_behind_the_end_mark_and_filled_up_in_batches(preprocess):
    short, long = preprocess("A film"), preprocess("the actor was very very awful and quite a bit bad")
    assert short.tolist() == [2, 6, 7, 3]
    assert len(long) == 6
    assert (long[0], long[-1]) == (2, 3), "the special tokens stay when a text is cut"
    assert preprocess.collate([short, long]).tolist() == [[2, 6, 7, 3, 0, 0], long.tolist()]


def test_words_that_look_like_special_tokens_are_ordinary_text(preprocess):
    assert preprocess("[SEP] film").tolist().count(3) == 1
    assert 0 not in preprocess("[PAD] film").tolist()


def test_lengths_are_those_of_the_inputs(preprocess):
    texts = ["film", "the actor was very very awful and more", "a film"]
    assert preprocess.lengths(texts) == [len(preprocess(text)) for text in texts] == [3, 6, 4]


def test_the_summary_counts_the_texts_that_are_cut(preprocess):
    assert "33.3 % are cut (model.max_length=6)" in preprocess.summary_of(["film", "very " * 9, "a film"])
    assert "none is cut" in preprocess.summary_of(["film"])


def test_a_checkpoint_needs_no_tokenizer_file(preprocess):
    again = from_saved_form(saved_form(preprocess))
    assert again == preprocess
    assert torch.equal(again("a superb film"), preprocess("a superb film"))


def test_generated_samples_are_usable(preprocess):
    assert preprocess.example(3).shape == (3, 6)
    assert 0 not in preprocess.example(50)
    assert preprocess(preprocess.raw_example(1)).tolist() != preprocess(preprocess.raw_example(2)).tolist()
    batch, axes = preprocess.export_example()
    assert 0 in batch[1]
    assert axes == {0: "batch", 1: "length"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"a\xff", r"not UTF-8 \(byte 1\)"),
        ("a film".encode("utf-16"), "UTF-16: save it as UTF-8"),
        ("a film".encode("utf-16-le"), "NUL character"),
    ],
)
def test_a_file_without_a_text_is_refused(content, reason, preprocess, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    for source in (str(tmp_path / "a.txt"), io.BytesIO(content)):
        with pytest.raises(UnreadableInput, match=reason):
            preprocess.read(source)


def test_a_byte_order_mark_is_no_text(preprocess, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffilm\r\nplot")
    assert preprocess.read(str(tmp_path / "a.txt")) == "film\r\nplot"


def test_each_line_of_a_file_or_stream_is_a_text(preprocess, tmp_path):
    content = b"\xef\xbb\xbfa film\r\n\n\xff\na \xf0\x9f\x9a\x80 plot"
    (tmp_path / "a.txt").write_bytes(content)
    path = tmp_path / "a.txt"
    for source, prefix in ((str(path), f"{path}:"), (io.BytesIO(content), "line ")):
        assert list(preprocess.samples_in(source)) == [
            Unlabelled(f"{prefix}1", "a film"),
            Unlabelled(f"{prefix}2", reason="empty"),
            Unlabelled(f"{prefix}3", reason="not UTF-8 (byte 0)"),
            Unlabelled(f"{prefix}4", "a 🚀 plot"),
        ]


def test_a_file_of_another_kind_has_no_lines_of_text(preprocess, tmp_path):
    (tmp_path / "a.txt").write_bytes("a film\na plot".encode("utf-16"))
    for source in (str(tmp_path / "a.txt"), io.BytesIO("a film".encode("utf-16"))):
        with pytest.raises(UsageError, match=r"(a\.txt|standard input): UTF-16: save it as UTF-8"):
            list(preprocess.samples_in(source))
    (tmp_path / "a.json").write_text('["a film"]')
    with pytest.raises(UsageError, match=r"a\.json: the lines of such a file are no texts. Save it as \.txt"):
        list(preprocess.samples_in(str(tmp_path / "a.json")))


@pytest.mark.parametrize(
    ("given", "reason"), [(None, "empty"), (float("nan"), "empty"), (" ", "empty"), ("a \ud800", "half a character")]
)
def test_a_text_in_memory_that_cannot_be_used_has_a_reason(given, reason, preprocess):
    with pytest.raises(UnreadableInput, match=reason):
        preprocess.from_memory(given)


def test_samples_of_another_kind_are_refused(preprocess):
    preprocess.check_kind([Texts(["a film"])])
    with pytest.raises(UsageError, match="this model is for texts, and the data hold none"):
        preprocess.check_kind([lambda index: torch.zeros(3, 8, 8)])
    with pytest.raises(UsageError, match=r"texts \(str\) or paths of files, not dict"):
        preprocess.from_memory({})


@pytest.mark.parametrize(
    ("content", "column"),
    [("id,Review\n1,a film\n2,\n", None), ("x,y\n1,a film\n2,\n", "y"), ("1,a film\n2,\n", 1), ("a film\n", None)],
)
def test_each_row_of_a_table_is_a_text(content, column, preprocess, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(content)
    found = list(preprocess.samples_in(str(path), column))
    first = content.splitlines().index(next(line for line in content.splitlines() if "a film" in line)) + 1
    assert found[0] == Unlabelled(f"{path}:{first}", "a film")
    if len(found) > 1:
        assert found[1] == Unlabelled(f"{path}:{first + 1}", reason="empty")


def test_a_table_whose_texts_are_not_found_says_what_to_type(preprocess, tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,a film\n")
    with pytest.raises(UsageError, match=r"2 columns without names.*column=<name or position from 0>"):
        list(preprocess.samples_in(str(tmp_path / "a.csv")))


def test_a_tokenizer_that_is_none_is_refused():
    with pytest.raises(UsageError, match="the tokenizer cannot be read"):
        TextPreprocess("{}", 6)("a")
