import csv
import json
import os

import pytest

from headstart.errors import UsageError
from headstart.inputs import tables
from headstart.inputs.tables import read_table


@pytest.fixture
def table(tmp_path):
    """Reads a table with this content."""

    def read(name, content):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(file)

    return read


def rows(table):
    return [(row.place, *row.values) for row in table.rows]


@pytest.mark.parametrize("delimiter", ",;\t")
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(table, delimiter, end):
    lines = ["text?label", '"one, two; ""three"""?a', "", '"two', 'lines"?b', '5" disk?c']
    found = table("x.csv", "\ufeff" + end.join(lines).replace("?", delimiter) + end)
    assert rows(found) == [
        (1, "text", "label"), (2, 'one, two; "three"', "a"), (4, f"two{end}lines", "b"), (6, '5" disk', "c"),
    ]  # fmt: skip
    assert (found.bad, found.names, found.width) == ({}, None, 2)


def test_a_csv_file_without_a_line_break_at_its_end_and_with_old_line_breaks(table):
    assert rows(table("x.csv", "a,b\rc,d")) == [(1, "a", "b"), (2, "c", "d")]
    assert rows(table("x.tsv", "a\tb\rc\td")) == [(1, "a", "b"), (2, "c", "d")]


def test_the_delimiter_inside_quotes_does_not_count(table):
    assert rows(table("x.csv", '"a,b,c";d\n')) == [(1, "a,b,c", "d")]


def test_a_quote_that_is_never_closed_costs_one_row(table):
    lines = [f"text {i},a" for i in range(100)]
    lines[40] = '"text 40,a'
    found = table("x.csv", "\n".join(lines))
    assert found.bad == {41: "a quote opens here and is never closed"}
    assert [row.place for row in found.rows] == [*range(1, 41), *range(42, 101)]


def test_a_quote_that_is_closed_in_a_later_row_costs_one_row(table):
    found = table("x.csv", 'one,a\n"two,a\nthree,b\n"four, five",b\n"six ""x""",b\n')
    assert found.bad == {2: "unbalanced quotes (a quote inside a value in quotes has to be doubled)"}
    assert rows(found) == [(1, "one", "a"), (3, "three", "b"), (4, "four, five", "b"), (5, 'six "x"', "b")]


def test_quotes_that_are_all_unbalanced_take_no_quadratic_time(table):
    with pytest.raises(UsageError, match=r"x\.csv, line \d+: too many unbalanced quotes.*\.tsv"):
        table("x.csv", 'x","y\n' * 20_000)


def test_in_tsv_a_quote_is_an_ordinary_character(table):
    found = table("x.tsv", '"an opening quote\t1\nno quote\t0\na "word"\t1\n" "\t0\n')
    assert [row.values[0] for row in found.rows] == ['"an opening quote', "no quote", 'a "word"', '" "']
    assert found.bad == {}


def test_in_tsv_values_that_are_mostly_in_quotes_give_a_warning(table, caplog):
    table("x.tsv", '"a text"\t1\n"one\t0\n' * 100)
    assert not caplog.messages  # half of the rows
    table("x.tsv", '"a text"\t1\n"one"\t0\nno quote\t1\n')
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("If they enclose the values, save the table as .csv")


@pytest.mark.parametrize("first", ["sep=;", '"SEP=;"'])
def test_the_first_line_of_excel_names_the_delimiter(first, table):
    found = table("x.csv", f"\ufeff{first}\r\none, two;a\r\n\r\nthree, four;b\r\n")
    assert (rows(found), found.bad) == ([(2, "one, two", "a"), (4, "three, four", "b")], {})
    assert table("x.csv", first).rows == []
    assert rows(table("x.csv", "a,b\nsep=;,c")) == [(1, "a", "b"), (2, "sep=;", "c")]


def test_in_tsv_and_json_only_line_breaks_end_a_line(table):
    assert rows(table("x.tsv", "a\u2028b\x0bc\td\n")) == [(1, "a\u2028b\x0bc", "d")]
    assert rows(table("x.jsonl", '{"text": "a\u2028b\x85"}\n')) == [(1, "a\u2028b\x85")]


@pytest.mark.parametrize(("name", "between"), [("x.csv", b","), ("x.tsv", b"\t"), ("x.txt", b"\t")])
def test_rows_that_cannot_be_used(table, name, between):
    lines = [b"one?a", b"caf\xe9?a", b"two", b"three?b?c", b"four\0?b", "fünf?b".encode()]
    found = table(name, b"\n".join(line.replace(b"?", between) for line in lines))
    assert rows(found) == [(1, "one", "a"), (6, "fünf", "b")]
    assert found.bad == {
        2: "not UTF-8",
        3: "1 columns in place of 2",
        4: "3 columns in place of 2",
        5: "holds a NUL character",
    }


def test_json_lines(table):
    lines = [
        {"text": "a", "label": 1}, {"label": True, "text": "b"}, {"text": "c", "label": None, "more": [1, "é"]},
    ]  # fmt: skip
    content = "\n".join(json.dumps(line) for line in lines)
    content += '\n \n{"text": "d", "label": 1.0}\n{"text": "e", "label": 123456789012345678901234567890}'
    content += '\n{"text": "f", "label": NaN, "more": Infinity}'
    found = table("x.ndjson", content)
    assert found.names == ("text", "label", "more")
    assert rows(found) == [
        (1, "a", "1", ""), (2, "b", "true", ""), (3, "c", "", '["1", "é"]'), (5, "d", "1.0", ""),
        (6, "e", "123456789012345678901234567890", ""), (7, "f", "", "Infinity"),
    ]  # fmt: skip


def test_json_lines_that_cannot_be_used(table):
    lines = ['{"text": "a"}', '{"text": ', "[1]", '{"text": "a", "text": "b"}', '{"text": "\\ud800"}', "[" * 100_000]
    found = table("x.jsonl", "\n".join(lines).encode() + b'\n{"text": "\xff"}')
    assert rows(found) == [(1, "a")]
    assert list(found.bad) == [2, 3, 4, 5, 6, 7]
    assert found.bad[3].startswith("invalid JSON (no object")
    assert found.bad[4] == "invalid JSON (the key 'text' appears twice)"
    assert found.bad[5] == "holds half a character (a lone surrogate)"
    assert found.bad[7] == "not UTF-8"


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {
        "text": ["a", None],
        "label": [1, 0],
        "score": [1.0, float("nan")],
        "yes": [True, False],
        "raw": [b"\xff", b"x"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    found = read_table(tmp_path / "x.parquet")
    assert (found.names, found.unit) == (("text", "label", "score", "yes", "raw"), "row")
    assert rows(found) == [(1, "a", "1", "1.0", "true", "(1 bytes)"), (2, "", "0", "", "false", "x")]
    content = (tmp_path / "x.parquet").read_bytes()
    text = pyarrow.array([b"a", b"\xff", b"c"]).cast(pyarrow.string(), safe=False)
    parquet.write_table(pyarrow.table({"text": text, "label": [1, 2, 1]}), tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet").bad == {2: "not UTF-8"}
    for broken in (b"", content[:-20], b"PAR1" + bytes(100) + b"PAR1"):
        (tmp_path / "x.parquet").write_bytes(broken)
        with pytest.raises(UsageError, match=r"x\.parquet cannot be read as Parquet"):
            read_table(tmp_path / "x.parquet")


@pytest.fixture
def parquet(tmp_path):
    """Reads a Parquet file with these columns."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    def read(columns):
        write_table(pyarrow.table(columns), tmp_path / "x.parquet", compression="zstd", store_schema=False)
        assert (tmp_path / "x.parquet").stat().st_size < 10_000
        return read_table(tmp_path / "x.parquet")

    return read


@pytest.mark.parametrize("kind", ["text", "bytes", "texts in lists"])
def test_a_small_parquet_file_whose_text_would_fill_the_memory_is_refused(kind, parquet, monkeypatch):
    """One value of a megabyte that is stored once, for 3,000 rows."""
    import pyarrow

    value = {"text": "x" * 10**6, "bytes": b"x" * 10**6, "texts in lists": "x" * 10**6}[kind]
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 3000, pyarrow.int32()), pyarrow.array([value]))
    if kind == "texts in lists":
        values = pyarrow.ListArray.from_arrays(pyarrow.array(range(3001), pyarrow.int32()), values)
    monkeypatch.setattr("headstart.inputs.tables.MAX_BYTES", 10**7)
    before = pyarrow.default_memory_pool().max_memory()
    with pytest.raises(UsageError, match=r"x\.parquet holds more than 0\.0 GB of text"):
        parquet({"text": values})
    assert pyarrow.default_memory_pool().max_memory() < max(before, 5 * 10**7)


def test_a_small_parquet_file_with_very_many_numbers_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"a": pyarrow.array(bytes(1_500_000), pyarrow.uint8())}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match=r"bytes and 1,500,000 values: such a small file could fill the memory"):
        read_table(tmp_path / "x.parquet")


def test_parquet_without_and_with_few_different_texts(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {"text": [f"text {i}" for i in range(500)], "label": ["a", None, "b", "a", "b"] * 100}
    expected = [(i + 1, f"text {i}", columns["label"][i] or "") for i in range(500)]
    encoded = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY", "label": "PLAIN"}}
    for options in ({}, {"use_dictionary": False}, {"row_group_size": 7}, {"dictionary_pagesize_limit": 100}, encoded):
        parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet", **options)
        assert rows(read_table(tmp_path / "x.parquet")) == expected


@pytest.mark.parametrize("columns", [{"a": [7] * 600, "b": [8] * 600}, {"a": [[1] * 1001]}], ids=["rows", "a list"])
def test_a_small_parquet_file_with_very_many_values_is_refused(columns, parquet, monkeypatch):
    monkeypatch.setattr("headstart.inputs.tables.MOST_VALUES", 1000)
    monkeypatch.setattr("headstart.inputs.tables.as_text", lambda value: pytest.fail("values were read"))
    with pytest.raises(UsageError, match=r"x\.parquet has 1,[0-9]+ values, at most 1,000 are read: give a table with"):
        parquet(columns)


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.csv", "a,b\n" * 600), ("x.tsv", "a\tb\n" * 600), ("x.tsv", "\n" * 2000), ("x.csv", "a\r" * 2000)],
)
def test_a_table_with_very_many_values_is_refused(name, content, table, monkeypatch):
    monkeypatch.setattr("headstart.inputs.tables.MOST_VALUES", 1000)
    with pytest.raises(UsageError, match=r"x\.[ct]sv has [12],[0-9]+ (values|lines), at most 1,000 are read"):
        table(name, content)


def test_json_lines_whose_keys_are_all_different_are_refused(table, monkeypatch):
    """A table has a value for each key in each row, so its size is the product of both."""
    lines = [json.dumps({f"key {i}": i}) for i in range(3000)]
    assert table("x.jsonl", "\n".join(lines[:1000])).width == 1000
    with pytest.raises(UsageError, match=r"x\.jsonl, line 1001: up to this line there are 1,001 different keys"):
        table("x.jsonl", "\n".join(lines))
    monkeypatch.setattr("headstart.inputs.tables.MOST_VALUES", 1000)
    with pytest.raises(UsageError, match=r"x\.jsonl has 1,600 values"):
        table("x.jsonl", "\n".join(lines[:40]))


@pytest.mark.parametrize("depth", [300, 900, 980, 990, 10_000])
def test_json_that_is_nested_deeply_costs_one_row(depth, table):
    found = table("x.jsonl", '{"a": "b"}\n{"a": ' + "[" * depth + "]" * depth + "}")
    assert len(found.rows) + len(found.bad) == 2
    assert set(found.bad.values()) <= {"too many lists or objects inside each other"}


def test_parquet_without_its_package(table, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r'pip install -e "\.\[parquet\]"'):
        table("x.parquet", b"")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_a_huge_value_and_an_empty_file(table, name):
    limit = csv.field_size_limit()
    line = {"x.csv": "{},a", "x.tsv": "{}\ta", "x.jsonl": '{{"text": "{}", "label": "a"}}'}[name]
    assert len(table(name, line.format("x" * 300_000)).rows[0].values[0]) == 300_000
    assert csv.field_size_limit() == limit
    assert table(name, "").rows == table(name, "\ufeff\n\r\n").rows == []


def test_files_that_are_no_table(table, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"is UTF-16: save it as UTF-8"):
        table("x.csv", "a,b".encode("utf-16"))
    with pytest.raises(UsageError, match=r"has no tabs.*data=text_folder"):
        table("x.txt", "a text\n")
    with pytest.raises(UsageError, match=r"is no table: give a file that ends in \.csv"):
        table("x.xlsx", "")
    with pytest.raises(UsageError, match=r"no\.csv: cannot be opened"):
        read_table(tmp_path / "no.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UsageError, match=r"pipe\.csv: cannot be opened \(it is a folder, a pipe"):
        read_table(tmp_path / "pipe.csv")
    monkeypatch.setattr("headstart.inputs.opening.MAX_BYTES", 2)
    with pytest.raises(UsageError, match="too large"):
        table("x.csv", "a,b")


def test_columns_by_name_and_position(table):
    found = table("x.csv", "a,b,b\n1,2,3\n").with_header()
    assert rows(found) == [(2, "1", "2", "3")]
    assert found.position("k", "a") == 0
    assert found.position("k", 2) == 2
    mistakes = [("c", "no such column"), ("b", "2 columns of this name: give k=1 or 2"), (3, "from 0 to 2")]
    for wanted, message in mistakes:
        with pytest.raises(UsageError, match=message):
            found.position("k", wanted)


def test_a_header_that_cannot_be_used(table):
    with pytest.raises(UsageError, match=r"line 1: the header cannot be used \(2 columns in place of 3\): correct it$"):
        table("x.csv", "a,b\n1,2,3\n4,5,6\n").with_header()


def test_as_text():
    assert tables.as_text({"a": [1]}) == '{"a": [1]}'
