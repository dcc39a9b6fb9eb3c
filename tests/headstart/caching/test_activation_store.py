"""Rows on disk: whole or absent, whoever writes, reads, removes or damages them."""

import os
import random
import shutil

import pytest
import torch

from headstart.caching import activation_store as stores
from headstart.caching.activation_store import ActivationStore, Layout, holding, make_room


def digests(*numbers):
    return [f"{number:040x}" for number in numbers]


def values_of(*numbers, shape=(5,)):
    return torch.stack([torch.full(shape, float(number)) for number in numbers])


def filled(folder, *numbers):
    folder.mkdir(parents=True, exist_ok=True)
    store = ActivationStore(folder)
    store.begin(Layout.of(values_of(0)))
    store.append(digests(*numbers), values_of(*numbers))
    return ActivationStore(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7,), (4, 6), (3, 4, 5), (3, 1, 1)])
def test_rows_come_back_to_the_bit_in_their_memory_format(shape, dtype, tmp_path):
    values = torch.randn(6, *shape).to(dtype)
    for given in (values, values.to(memory_format=torch.channels_last) if len(shape) == 3 else values):
        store = ActivationStore(tmp_path)
        store.begin(Layout.of(given))
        store.append(digests(*range(6)), given)
        back = ActivationStore(tmp_path).serve(digests(5, 0, 5))([2, 1, 0, 0])
        assert torch.equal(back, given[[5, 0, 5, 5]])
        assert back.stride()[1:] == given.stride()[1:] or shape[1:] == (1, 1)


def test_a_batch_in_another_memory_format_has_the_same_rows(tmp_path):
    values = torch.randn(4, 2, 3, 5)
    last = values.to(memory_format=torch.channels_last)
    for name, first, second in (("a", values, last), ("b", last, values)):
        (tmp_path / name).mkdir()
        store = ActivationStore(tmp_path / name)
        store.begin(Layout.of(first))
        store.append(digests(0, 1), first[:2])
        store.append(digests(2, 3), second[2:])
        back = ActivationStore(tmp_path / name).serve(digests(*range(4)))(range(4))
        assert torch.equal(back, values)
        assert back.stride() == first.stride()


@pytest.mark.parametrize("values", [values_of(1), values_of(1, 2, 3), values_of(1, 2).double(), torch.zeros(2, 1, 5)])
def test_what_is_not_one_row_a_sample_is_refused(values, tmp_path):
    store = filled(tmp_path / "a", 0)
    with pytest.raises(ValueError, match=r"for 2 samples of Layout\(shape=\(5,\)"):
        store.append(digests(1, 2), values)
    assert ActivationStore(tmp_path / "a").lacking(digests(0, 1, 2)) == digests(1, 2)


def test_rows_of_different_lengths_come_back_filled_up_with_zeros(tmp_path):
    lengths = [3, 1, 4, 2]
    values = torch.zeros(4, 5, 6)
    for row, length in zip(values, lengths, strict=True):
        row[:length] = torch.randn(length, 6)
    values[0, 1] = 0  # a zero within a sample is not its end
    layout = Layout.of(values, variable_length=True)
    tmp_path.joinpath("a").mkdir()
    store = ActivationStore(tmp_path / "a")
    store.begin(layout)
    store.append(digests(0, 1), values[:2])  # padded to 5 places
    store.append(digests(2, 3), values[2:, :4])  # and to 4
    back = ActivationStore(tmp_path / "a")
    assert back.lacking(digests(*range(4))) == []
    assert (tmp_path / "a" / "rows.bin").stat().st_size == sum(lengths) * 6 * 4, "padding takes no room"
    rows = back.serve(digests(*range(4)))
    assert rows.bytes == sum(lengths) * 6 * 4
    assert torch.equal(rows([3, 0, 1]), values[[3, 0, 1], :3])
    assert torch.equal(rows([1]), values[[1], :1])
    assert back.row_bytes == pytest.approx(sum(lengths) / 4 * 6 * 4 + 36)


def test_a_damaged_row_among_rows_of_different_lengths_is_found(tmp_path):
    values = torch.ones(3, 4, 2)
    values[0, 2:] = 0
    tmp_path.joinpath("a").mkdir()
    store = ActivationStore(tmp_path / "a")
    store.begin(Layout.of(values, variable_length=True))
    store.append(digests(0, 1, 2), values)
    with (tmp_path / "a" / "rows.bin").open("r+b") as stream:
        stream.seek((2 + 4) * 2 * 4)  # the first place of the last sample
        stream.write(b"x")
    assert ActivationStore(tmp_path / "a").lacking(digests(0, 1, 2)) == digests(2)


def test_feature_vectors_of_samples_of_different_lengths_have_no_places():
    assert Layout.of(torch.ones(2, 7), variable_length=True) == Layout.of(torch.ones(2, 7))


def test_what_is_lacking_is_told_once_and_in_order(tmp_path):
    store = filled(tmp_path / "a", 1, 2)
    assert store.lacking(digests(9, 1, 3, 9, 2, 3)) == digests(9, 3)


def test_others_rows_are_seen_and_the_newest_counts(tmp_path):
    one, other = filled(tmp_path / "a", 1), ActivationStore(tmp_path / "a")
    other.append(digests(2), values_of(2))
    other.append(digests(1), values_of(7))
    one.refresh()
    assert one.serve(digests(1, 2))([0, 1])[:, 0].tolist() == [7, 2]


def test_what_a_killed_process_left_half_written_is_passed_over(tmp_path):
    filled(tmp_path / "a", 1, 2)
    for name in ("rows.bin", "index.bin"):
        with (tmp_path / "a" / name).open("ab") as stream:
            stream.write(b"\1" * 7)
    store = ActivationStore(tmp_path / "a")
    assert store.lacking(digests(1, 2, 3)) == digests(3)
    store.append(digests(3), values_of(3))
    assert ActivationStore(tmp_path / "a").serve(digests(3, 1))([0, 1])[:, 0].tolist() == [3, 1]


def test_a_changed_byte_anywhere_is_noticed_or_harmless(tmp_path):
    filled(tmp_path / "a", *range(10))
    draw = random.Random(0)
    for name in ("rows.bin", "index.bin", "meta.json"):
        path = tmp_path / "a" / name
        whole = path.read_bytes()
        for offset in draw.sample(range(len(whole)), min(60, len(whole))):
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << draw.randrange(8)]) + whole[offset + 1 :])
            store = ActivationStore(tmp_path / "a")
            lacking = store.lacking(digests(*range(10)))
            sound = [number for number in range(10) if digests(number)[0] not in lacking]
            assert name == "meta.json" or len(sound) >= 9
            if sound:
                assert torch.equal(store.serve(digests(*sound))(range(len(sound))), values_of(*sound))
        for length in draw.sample(range(len(whole)), 10):
            path.write_bytes(whole[:length])
            store = ActivationStore(tmp_path / "a")
            lacking = store.lacking(digests(*range(10)))
            sound = [number for number in range(10) if digests(number)[0] not in lacking]
            if sound:
                assert torch.equal(store.serve(digests(*sound))(range(len(sound))), values_of(*sound))
        path.write_bytes(whole)


@pytest.mark.skipif(os.name == "nt", reason="a mapped file cannot be removed there")
def test_rows_outlive_their_store(tmp_path):
    rows = filled(tmp_path / "a", 1, 2).serve(digests(2, 1))
    store = ActivationStore(tmp_path / "a")
    store.begin(store.layout, anew=True)
    store.append(digests(5), values_of(5))
    assert rows([0, 1])[:, 0].tolist() == [2, 1]
    shutil.rmtree(tmp_path / "a")
    assert rows([0, 1])[:, 0].tolist() == [2, 1]


@pytest.mark.parametrize("removed", [False, True])
def test_rows_of_a_store_begun_anew_are_not_taken_for_those_of_its_index(removed, tmp_path):
    reader = filled(tmp_path / "a", 1, 2)
    if removed:
        shutil.rmtree(tmp_path / "a")
        filled(tmp_path / "a", 2, 1)
    else:
        writer = ActivationStore(tmp_path / "a")
        writer.begin(writer.layout, anew=True)
        writer.append(digests(2, 1), values_of(2, 1))
        assert writer.born == ActivationStore(tmp_path / "a").born
    with pytest.raises(FileNotFoundError, match="was begun anew"):
        reader.serve(digests(1, 2))


def used(folder, when):
    os.utime(folder, (when, when))


def test_the_oldest_make_room_but_not_one_that_is_held(tmp_path):
    for when, name in enumerate("abcd"):
        filled(tmp_path / name, *range(10))
        used(tmp_path / name, when)
    (size,) = {size for _, size in stores._found(tmp_path).values()}
    with holding(tmp_path / "d"), holding(tmp_path / "a"):
        assert make_room(tmp_path, 100, 4 * size + 100, tmp_path / "d")
        assert make_room(tmp_path, 100, 4 * size, tmp_path / "d")
        assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"a", "c", "d"}
        assert make_room(tmp_path, size, 3 * size, tmp_path / "d")
        assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"a", "d"}
        assert not make_room(tmp_path, 1, 2 * size, tmp_path / "d"), "the other one is held"
        assert not make_room(tmp_path, size, 2 * size - 1, tmp_path / "d")
        assert make_room(tmp_path, size, 2 * size, tmp_path / "d", instead=True)


def test_what_a_killed_process_left_of_a_removal_is_removed(tmp_path):
    filled(tmp_path / f"a{stores.REMOVED}", 1)
    filled(tmp_path / "b", 1)
    used(tmp_path / f"a{stores.REMOVED}", 1)
    assert make_room(tmp_path, 1, 250, tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["b"]


@pytest.mark.parametrize("name", ["holiday.jpg", "rows"])
def test_what_is_no_store_is_neither_counted_nor_removed(name, tmp_path):
    filled(tmp_path / "a", 1)
    (tmp_path / "b" / name).mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / name).write_bytes(bytes(10**4))
    shutil.copytree(tmp_path / "a", tmp_path / "c", dirs_exist_ok=True)
    assert make_room(tmp_path, 1000, 2000, tmp_path / "a")
    assert not make_room(tmp_path, 2000, 2000, tmp_path / "a")
    assert (tmp_path / "b" / name).is_dir()
    assert (tmp_path / "c" / name).stat().st_size == 10**4


def test_a_disk_without_room_is_noticed(tmp_path, monkeypatch):
    filled(tmp_path / "a", 1)
    assert make_room(tmp_path, 1000, 10**9, tmp_path / "a")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 999))
    assert not make_room(tmp_path, 1000, 10**9, tmp_path / "a")
