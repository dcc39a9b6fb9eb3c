"""Pictures on disk: whole or absent, whoever adds, reads, removes or damages them."""

import hashlib
import multiprocessing
import os
import pickle
import random
import shutil

import pytest
import torch

from headstart.caching.picture_store import RECORD, PictureStore


def digest(number):
    return hashlib.blake2b(bytes([number]), digest_size=20).hexdigest()


def picture(number, height=4, width=5):
    generator = torch.Generator().manual_seed(number)
    return torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8).permute(2, 0, 1)


def opened(root, limit=1e9, name="ab"):
    return PictureStore(root, name, limit)


def filled(root, *numbers, **options):
    store = opened(root, **options)
    for number in numbers:
        store.add(digest(number), picture(number))
    return store


def sound(root, *numbers):
    """Which of the pictures a new process finds; each is verified to be the right one."""
    store = opened(root)
    found = [number for number in numbers if store.read(digest(number)) is not None]
    assert all(torch.equal(store.read(digest(number)), picture(number)) for number in found)
    return found


def segments(root):
    return sorted(path for path in root.iterdir() if path.is_dir())


@pytest.mark.parametrize("shape", [(4, 5), (1, 7), (300, 1)])
def test_pictures_come_back_to_the_bit_in_their_memory_format(shape, tmp_path):
    store = filled(tmp_path)
    store.add(digest(1), picture(1, *shape))
    for reader in (store, opened(tmp_path)):
        back = reader.read(digest(1))
        assert torch.equal(back, picture(1, *shape))
        assert back.stride() == (1, 3 * shape[1], 3)
        back.fill_(0)  # it is the reader's own
        assert torch.equal(reader.read(digest(1)), picture(1, *shape))
    assert store.read(digest(2)) is None


def test_others_pictures_are_seen_when_they_are_missed(tmp_path):
    one, other = filled(tmp_path, 1), filled(tmp_path, 2)
    assert len(segments(tmp_path)) == 2
    assert torch.equal(one.read(digest(2)), picture(2))
    other.add(digest(3), picture(3))
    assert torch.equal(one.read(digest(3)), picture(3))
    assert one.claim([digest(n) for n in (1, 2, 3, 4)]) == 3


def test_another_name_is_another_store(tmp_path):
    filled(tmp_path, 1)
    assert opened(tmp_path, name="a").read(digest(1)) is None


@pytest.mark.parametrize("name", ["rows.bin", "index.bin"])
def test_what_a_killed_process_left_half_written_is_passed_over(name, tmp_path):
    filled(tmp_path, 1, 2)
    (segment,) = segments(tmp_path)
    whole = (segment / name).read_bytes()
    (segment / name).write_bytes(whole + b"\1" * 7)
    assert sound(tmp_path, 1, 2) == [1, 2]
    (segment / name).write_bytes(whole[:-7])
    assert sound(tmp_path, 1, 2) == [1]
    filled(tmp_path, 2)
    assert sound(tmp_path, 1, 2) == [1, 2]


def test_a_record_that_was_half_written_is_read_when_it_is_whole(tmp_path):
    filled(tmp_path, 1, 2)
    index = segments(tmp_path)[0] / "index.bin"
    whole = index.read_bytes()
    index.write_bytes(whole[:-7])
    store = opened(tmp_path)
    assert store.read(digest(2)) is None
    index.write_bytes(whole)
    assert torch.equal(store.read(digest(2)), picture(2))


def test_a_changed_byte_anywhere_is_noticed_and_computed_again(tmp_path):
    filled(tmp_path, *range(8))
    (segment,) = segments(tmp_path)
    draw = random.Random(0)
    for name in ("rows.bin", "index.bin"):
        path = segment / name
        whole = path.read_bytes()
        for place in draw.sample(range(len(whole)), 100):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
            assert len(sound(tmp_path, *range(8))) == 7
        for length in draw.sample(range(len(whole)), 20):
            path.write_bytes(whole[:length])
            assert len(sound(tmp_path, *range(8))) < 8
        path.write_bytes(whole)
    assert sound(tmp_path, *range(8)) == list(range(8))


def test_of_two_records_the_newer_counts(tmp_path):
    filled(tmp_path, 1)
    (old,) = segments(tmp_path)
    (old / "rows.bin").write_bytes(bytes(60))
    os.utime(old / "index.bin", (1, 1))
    store = opened(tmp_path)
    assert store.read(digest(1)) is None
    store.add(digest(1), picture(1))
    assert sound(tmp_path, 1) == [1]


def _read_and_add(store, numbers, told):
    told.put([store.read(digest(n)) is not None and torch.equal(store.read(digest(n)), picture(n)) for n in (1, 2)])
    for number in numbers:
        store.add(digest(number), picture(number))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_forked_processes_share_neither_positions_nor_segments(tmp_path):
    store, context = filled(tmp_path, 1, 2), multiprocessing.get_context("fork")
    assert store.read(digest(1)) is not None
    told = context.Queue()
    workers = [context.Process(target=_read_and_add, args=(store, range(n, n + 40), told)) for n in (10, 30)]
    for worker in workers:
        worker.start()
    for number in range(100, 140):
        store.add(digest(number), picture(number))
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
        assert told.get() == [True, True]
    assert len(segments(tmp_path)) == 3
    assert sound(tmp_path, *range(140)) == [1, 2, *range(10, 70), *range(100, 140)]


def test_a_pickled_store_goes_on(tmp_path):
    copy = pickle.loads(pickle.dumps(filled(tmp_path, 1)))
    copy.add(digest(2), picture(2))
    assert torch.equal(copy.read(digest(1)), picture(1))
    assert sound(tmp_path, 1, 2) == [1, 2]


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
def test_segments_that_are_removed_meanwhile_do_no_harm(tmp_path):
    reader, writer = opened(tmp_path), filled(tmp_path, 1, 2, limit=50 * 80)
    assert reader.read(digest(1)) is not None
    shutil.rmtree(segments(tmp_path)[0])
    assert torch.equal(reader.read(digest(2)), picture(2))
    assert opened(tmp_path).read(digest(1)) is None
    for number in (3, 4):
        writer.add(digest(number), picture(number))
    assert 4 in sound(tmp_path, 3, 4)


ROW = 4 * 5 * 3 + RECORD.size


def test_without_room_it_stops_and_says_so_once(tmp_path, caplog):
    store = filled(tmp_path, *range(20), limit=10 * ROW)
    assert (
        caplog.text.count("no more pictures are kept, the others are decoded in every epoch: cache.max_gb=1e-06 or")
        == 1
    )
    assert sound(tmp_path, *range(20)) == list(range(10))
    assert store.read(digest(15)) is None
    assert torch.equal(store.read(digest(5)), picture(5))


def test_what_nobody_uses_makes_room(tmp_path):
    for when, (number, name) in enumerate(((0, "ab"), (10, "cd"), (20, "ab"), (30, "ab"))):
        before = set(segments(tmp_path)) if tmp_path.exists() else set()
        filled(tmp_path, *range(number, number + 4), name=name)
        (new,) = set(segments(tmp_path)) - before
        os.utime(new, (when, when))
    store = opened(tmp_path, limit=16 * ROW)
    assert store.claim([digest(0)]) == 1  # otherwise the first to go
    store.add(digest(100), picture(100))
    assert sound(tmp_path, *range(40)) == [*range(4), *range(20, 24), *range(30, 34)]
    assert opened(tmp_path, name="cd").read(digest(10)) is None
    for number in range(101, 120):
        store.add(digest(number), picture(number))
    assert sound(tmp_path, *range(40), *range(100, 120)) == [*range(4), *range(100, 112)]


def test_a_folder_that_cannot_be_written_is_told(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = filled(tmp_path / "file", 1, 2)
    assert store.read(digest(1)) is None
    assert caplog.text.count("no more pictures are kept") == 1


def test_locks_do_not_grow_with_the_segments(tmp_path):
    for number in range(6):
        filled(tmp_path, number)
    for segment in segments(tmp_path):
        os.utime(segment, (1, 1))
    filled(tmp_path, 7, limit=ROW)
    assert len(segments(tmp_path)) == 1
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} <= {"ab.lock"}
