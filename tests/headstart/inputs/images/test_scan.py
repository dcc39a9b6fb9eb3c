import io
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from terminal import Terminal

from headstart import progress
from headstart.inputs.images import scan
from headstart.inputs.images.scan import ScanResult, scan_pictures
from headstart.progress import progress_bar


def draw(path: Path, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)
    return path


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    """Six paths: good, empty, text, good, a duplicate, missing."""
    root = tmp_path / "pictures"
    good = [draw(root / "a.png", 1), draw(root / "ü d.png", 2), draw(root / "e.png", 2)]
    empty, text = root / "b.jpg", root / "c.jpg"
    empty.write_bytes(b"")
    text.write_text("no picture")
    return [good[0], empty, text, good[1], good[2], root / "missing.jpg"]


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """A list that gets one entry per decoded picture."""
    calls: list[int] = []
    original = scan.largest_grey

    def counting(source):
        calls.append(1)
        return original(source)

    monkeypatch.setattr(scan, "largest_grey", counting)
    return calls


def test_bad_pictures_have_reasons_and_good_ones_digests(pictures):
    result = scan_pictures(pictures)
    assert list(result.bad) == [pictures[1], pictures[2], pictures[5]]
    assert result.bad[pictures[1]] == "empty file"
    assert result.bad[pictures[2]] == "not a picture (text?)"
    assert result.bad[pictures[5]].startswith("cannot be opened")
    assert list(result.digests) == [pictures[0], pictures[3], pictures[4]]
    assert result.digests[pictures[3]] == result.digests[pictures[4]] != result.digests[pictures[0]]
    assert result.bad_list is None


@pytest.mark.parametrize("batch", [1, 1024])
def test_result_depends_on_neither_threads_nor_batches_nor_cache(monkeypatch, pictures, tmp_path, batch):
    monkeypatch.setattr(scan, "_BATCH", batch)
    expected = scan_pictures(pictures, workers=1)
    cache_file = tmp_path / "scan.jsonl"
    scan_pictures(pictures[:3], cache_file)
    for result in (scan_pictures(pictures, workers=5), scan_pictures(pictures, cache_file, workers=3)):
        assert list(result.bad.items()) == list(expected.bad.items())
        assert list(result.digests.items()) == list(expected.digests.items())


def test_second_scan_decodes_nothing(pictures, tmp_path, decoded):
    cache_file = tmp_path / "new" / "scan.jsonl"
    first = scan_pictures(pictures, cache_file)
    assert len(decoded) == 5  # the missing one cannot be read
    assert scan_pictures(pictures, cache_file) == first
    assert len(decoded) == 5


def test_relative_and_absolute_paths_share_the_cache(pictures, tmp_path, decoded, monkeypatch):
    scan_pictures(pictures, tmp_path / "scan.jsonl")
    monkeypatch.chdir(tmp_path)
    relative = Path("pictures/a.png")
    assert list(scan_pictures([relative], tmp_path / "scan.jsonl").digests) == [relative]
    assert len(decoded) == 5


def test_changed_and_new_files_are_scanned_again_and_others_remembered(pictures, tmp_path, decoded):
    cache_file = tmp_path / "scan.jsonl"
    before = scan_pictures(pictures, cache_file)
    draw(pictures[1].with_suffix(".png"), 9).rename(pictures[1])  # the empty file is mended
    pictures[0].write_bytes(b"x" * pictures[0].stat().st_size)  # same size, no picture any more
    os.utime(pictures[0], ns=(0, 1))
    after = scan_pictures(pictures[:2], cache_file)
    assert len(decoded) == 5 + 2
    assert list(after.bad) == [pictures[0]]
    assert list(after.digests) == [pictures[1]]
    assert scan_pictures(pictures[3:5], cache_file).digests[pictures[3]] == before.digests[pictures[3]]
    assert len(decoded) == 5 + 2


def test_a_file_that_could_not_be_opened_is_tried_again(pictures, tmp_path, monkeypatch):
    def refuse(*_, **options):
        raise PermissionError(13, "Permission denied")

    cache_file = tmp_path / "scan.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        result = scan_pictures(pictures[:1], cache_file)
    assert result.bad == {pictures[0]: "cannot be opened (Permission denied)"}
    assert scan_pictures(pictures[:1], cache_file).bad == {}


def test_a_file_that_could_not_be_read_is_tried_again(pictures, tmp_path, monkeypatch):
    class Broken(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    cache_file = tmp_path / "scan.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(scan, "open_file", lambda path: Broken())
        result = scan_pictures(pictures[:1], cache_file)
    assert result.bad == {pictures[0]: "cannot be read (Input/output error)"}
    assert scan_pictures(pictures[:1], cache_file).bad == {}


@pytest.mark.parametrize(
    "damage", ["", "{", '{"headstart_scan": 0}\n', "HEADER\n[1, 2]\n", "HEADER\n[[], 1, 2, 3, 4, 5, 6, 7]\n"]
)
def test_damaged_or_foreign_cache_is_ignored_and_remade(pictures, tmp_path, decoded, caplog, damage):
    caplog.set_level(logging.INFO)
    cache_file = tmp_path / "scan.jsonl"
    cache_file.write_text(damage.replace("HEADER", json.dumps(scan._HEADER)))
    first = scan_pictures(pictures, cache_file)
    assert str(cache_file) in caplog.text
    assert len(decoded) == 5
    assert scan_pictures(pictures, cache_file) == first
    assert len(decoded) == 5


def test_a_picture_that_changed_behind_its_time_and_size_is_read_again(tmp_path):
    """As some tools for syncing and editing do: the time of the last change of the file cannot be set."""
    file, other = tmp_path / "a.bmp", tmp_path / "b.bmp"
    for path, colour in ((file, 1), (other, 2)):
        draw(path, colour)
    assert file.stat().st_size == other.stat().st_size
    cache_file, before = tmp_path / "scan.jsonl", file.stat()
    first = scan_pictures([file], cache_file)
    file.write_bytes(other.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan_pictures([file], cache_file).digests != first.digests


@pytest.mark.parametrize(("largest", "bits"), [(200, 8), (1023, 10), (4095, 12), (9000, 14), (65535, 16), (None, None)])
def test_bits_of_16_bit_grey(largest, bits, tmp_path):
    for name, value in (("a.png", 0), ("b.png", largest)):
        if value is not None:
            Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / name)
    draw(tmp_path / "c.png")
    cache_file = tmp_path / "scan.jsonl"
    files = sorted(tmp_path.glob("*.png"))[largest is None :]
    assert [scan_pictures(files, cache_file).grey_bits for _ in range(2)] == [bits, bits]


def test_cache_that_cannot_be_written_costs_one_warning(pictures, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    result = scan_pictures(pictures, tmp_path / "file" / "scan.jsonl")
    assert len(result.bad) == 3
    assert result.bad_list is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be saved" in caplog.text


def test_interrupted_scan_keeps_what_it_has_learnt_and_leaves_no_rubbish(pictures, tmp_path, decoded, monkeypatch):
    counting = scan.largest_grey

    def stop_at_second(source):
        if decoded:
            raise KeyboardInterrupt
        return counting(source)

    cache_file = tmp_path / "scan.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(scan, "largest_grey", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            scan_pictures(pictures, cache_file, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "scan.jsonl"]
    scan_pictures(pictures, cache_file)
    assert len(decoded) == 5


def test_all_bad_pictures_are_listed_in_a_file(pictures, tmp_path):
    result = scan_pictures(pictures, tmp_path / "scan.jsonl")
    assert result.bad_list == tmp_path / "scan.bad.txt"
    whole = result.bad_list.read_text().splitlines()
    assert [line.split("\t")[0] for line in whole] == [str(pictures[index]) for index in (1, 2, 5)]


def test_list_of_bad_pictures_goes_with_the_last_of_them(pictures, tmp_path):
    scan_pictures(pictures, tmp_path / "scan.jsonl")
    result = scan_pictures(pictures[:1], tmp_path / "scan.jsonl")
    assert result.bad_list is None
    assert not (tmp_path / "scan.bad.txt").exists()


def test_a_bar_counts_the_pictures_that_are_not_remembered(pictures, tmp_path, monkeypatch):
    bars = []

    def remembered(*args):
        bars.append(progress_bar(*args))
        return bars[-1]

    monkeypatch.setattr(scan, "progress_bar", remembered)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    scan_pictures(pictures[:2], tmp_path / "scan.jsonl")
    scan_pictures(pictures, tmp_path / "scan.jsonl")
    assert [(bar.n, bar.total) for bar in bars] == [(2, 2), (4, 4)]
    assert "checking pictures:" in terminal.getvalue()


def test_nothing_to_scan(tmp_path):
    assert scan_pictures([], tmp_path / "scan.jsonl") == ScanResult()
