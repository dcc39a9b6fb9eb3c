import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from headstart.datasets import unpack
from headstart.datasets.unpack import unpack_zip
from headstart.errors import UsageError

CONTENT = np.random.default_rng(0).bytes(300_000)


def make_zip(path: Path, files: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def refused(archive: Path, match: str, **limits) -> None:
    """It is refused for the reason given, and nothing of it is left."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(UsageError, match=match) as caught:
        unpack_zip(archive, archive.parent / "out", **limits)
    assert str(archive) in str(caught.value)
    assert sorted(archive.parent.rglob("*")) == before


def test_good_archive_is_unpacked_whole(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"P/": b"", "P/Cat/0.jpg": b"cat", "P/Dog/ü.jpg": b"dog", "readme": b""})
    target = tmp_path / "deep" / "out.d"
    assert unpack_zip(archive, target) == target
    files = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert files == {"P/Cat/0.jpg": b"cat", "P/Dog/ü.jpg": b"dog", "readme": b""}
    assert list(target.parent.iterdir()) == [target]


def test_only_wanted_members_are_unpacked(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"P/0.jpg": b"cat", "readme": b"", "../evil": b""})
    target = unpack_zip(archive, tmp_path / "out", members=lambda name: name.startswith("P/"))
    assert [path.name for path in target.rglob("*")] == ["P", "0.jpg"]
    with pytest.raises(UsageError, match="none of the files"):
        unpack_zip(archive, tmp_path / "none", members=lambda name: name.startswith("PetImages/"))


def test_what_is_there_is_not_unpacked_again_but_an_empty_folder_is_filled(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"a": b"a"})
    target = tmp_path / "out"
    target.mkdir()
    unpack_zip(archive, target)
    (target / "a").write_bytes(b"changed")
    archive.unlink()
    assert unpack_zip(archive, target) == target
    assert (target / "a").read_bytes() == b"changed"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "..\\evil", "/tmp/evil", "C:\\evil", "C:evil", "\\evil"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", {"good": b"", name: b"evil"})
    refused(archive, "has an absolute path|leads out of the folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path, kind):
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    refused(make_zip(tmp_path / "a.zip", {info: b"/etc/passwd"}), "'link' is a link or a device")


def test_encrypted_and_unusual_members_are_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"a": b"a"})
    content = bytearray(archive.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    archive.write_bytes(content)
    refused(archive, "'a' is encrypted")
    content[entry + 8] &= 0xFE
    content[entry + 10] = 9  # Deflate64
    archive.write_bytes(content)
    refused(archive, "'a' is compressed in an unusual way")


def test_two_members_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")
    refused(tmp_path / "a.zip", "File exists")


def test_limits(tmp_path):
    noise = make_zip(tmp_path / "a.zip", {"a": CONTENT, "b": CONTENT})
    refused(noise, "would unpack to 600,000 bytes, at most 599,999", max_bytes=599_999)
    refused(noise, "holds 2 files, at most 1", max_members=1)
    assert unpack_zip(noise, tmp_path / "enough", max_bytes=600_000, max_members=2)


def test_bomb_is_refused_by_its_ratio(tmp_path):
    bomb = make_zip(tmp_path / "a.zip", {"zeros": bytes(4 << 20)})
    refused(bomb, "would unpack to 4,194,304 bytes")
    assert unpack_zip(bomb, tmp_path / "allowed", max_ratio=2000)


def test_bytes_are_counted_and_not_believed(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", {"a": CONTENT, "b": CONTENT})
    monkeypatch.setattr(unpack, "_check_members", lambda *args: None)
    refused(archive, "more than it says", max_bytes=len(CONTENT) + 1)


def test_a_member_longer_than_it_says_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"zeros": bytes(4 << 20)})
    content = bytearray(archive.read_bytes())
    size_at = content.index(b"PK\x01\x02") + 24
    content[size_at : size_at + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    refused(archive, "damaged")


def test_damage_is_told(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"good": b"good", "a": CONTENT})
    whole = archive.read_bytes()
    for damaged in (whole[:-1000], whole[:1000], b"<html>", b"", whole.replace(CONTENT[5000:5010], b"0123456789")):
        assert damaged != whole
        archive.write_bytes(damaged)
        refused(archive, "damaged or no zip archive")
    archive.unlink()
    with pytest.raises(UsageError, match="No such file"):
        unpack_zip(archive, tmp_path / "out")


def test_an_interrupted_run_leaves_no_target(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", {"a": b"a", "b": b"b"})
    copy, calls = unpack._copy, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return copy(*args)

    with monkeypatch.context() as patch:
        patch.setattr(unpack, "_copy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            unpack_zip(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]
    assert len(list(unpack_zip(archive, tmp_path / "out").iterdir())) == 2


def test_full_disk_is_told_before_unpacking(tmp_path, monkeypatch):
    usage = unpack.shutil.disk_usage(".")
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda folder: usage._replace(free=9))
    archive = make_zip(tmp_path / "a.zip", {"a": bytes(10)})
    with pytest.raises(UsageError, match="9 bytes free, 10 are needed"):
        unpack_zip(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


def test_another_process_that_was_faster_is_no_error(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", {"a": b"ours"})
    copy, target = unpack._copy, tmp_path / "out"

    def overtaken(*args):
        target.mkdir()
        (target / "a").write_bytes(b"theirs")
        return copy(*args)

    monkeypatch.setattr(unpack, "_copy", overtaken)
    assert unpack_zip(archive, target) == target
    assert (target / "a").read_bytes() == b"theirs"
    assert sorted(tmp_path.iterdir()) == [archive, target]
