import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from headstart.files import NotPlainError, UnreadableError, read_torch_file, remove_leftovers, replacing


def test_an_error_leaves_what_was_there_and_no_litter(tmp_path):
    path = tmp_path / "new folder" / "a.csv"
    with replacing(path) as stream:
        stream.write("first\n")
    with pytest.raises(TypeError), replacing(path) as stream:
        stream.writelines(["second\n", 3])
    assert path.read_text() == "first\n"
    assert list(path.parent.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    path, done = tmp_path / "a", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (done.append(os.path.samestat(os.fstat(d), tmp_path.stat())), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("renamed"), replace(*names)))
    with replacing(path) as stream:
        stream.write("x")
    in_folder = [] if os.name == "nt" else [True]
    assert done == [False, "renamed", *in_folder]


@pytest.mark.skipif(os.name == "nt", reason="no process can be asked for there")
def test_leftovers_of_the_dead_go_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "last[1].ckpt"
    others = [f"other.ckpt.{ended.pid}.tmp", f"{path.name}.{os.getppid()}.tmp", f"{path.name}.x.tmp",
              f"{path.name}.{10**30}.tmp", f"{path.name}.tmp", path.name]  # fmt: skip
    for name in [f"{path.name}.{ended.pid}.tmp", *others]:
        (tmp_path / name).touch()
    remove_leftovers(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(others)
    remove_leftovers(tmp_path / "no folder" / "a")


def test_this_module_loads_no_torch():
    code = "import sys, headstart.files; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", "not a file of torch.save"),
        (bytes(1000), "not a file of torch.save"),
        (b"PK\x03\x04" + bytes(1000), "damaged or cut short"),
        (b"\x80\x02 no pickle", "damaged, or not a file of torch.save"),
    ],
)
def test_what_torch_never_wrote(content, message, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnreadableError, match=message):
        read_torch_file(tmp_path / "a", legacy=True)


def test_files_of_old_torch_are_read_where_asked_for(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a", _use_new_zipfile_serialization=False)
    assert read_torch_file(tmp_path / "a", legacy=True)["a"].tolist() == [1, 1, 1]
    with pytest.raises(UnreadableError, match=r"not a file of torch\.save"):
        read_torch_file(tmp_path / "a")


def test_code_in_a_file_is_not_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    for zipped in (True, False):
        torch.save({"x": Hostile()}, tmp_path / "a", _use_new_zipfile_serialization=zipped)
        with pytest.raises(NotPlainError, match=r"holds more than tensors and plain data \(io\.open\)"):
            read_torch_file(tmp_path / "a", legacy=True)
    assert not (tmp_path / "owned").exists()


def test_a_compressed_file_is_refused_before_it_fills_the_memory(tmp_path):
    whole, small = tmp_path / "whole.ckpt", tmp_path / "small.ckpt"
    torch.save({"zeros": torch.zeros(10**6)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    assert small.stat().st_size < 10**5
    with pytest.raises(UnreadableError, match="its records are compressed"):
        read_torch_file(small)
    assert read_torch_file(whole)["zeros"].shape == (10**6,)


def lists_in_lists(levels):
    """10 ** levels values in `levels` lists."""
    content = [0] * 10
    for _ in range(levels - 1):
        content = [content] * 10
    return content


def in_itself():
    content = []
    content.append(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lists_in_lists(9), "over 10,000,000 values"),
        ({"state": torch.zeros(1).expand(10**9)}, "the tensor 'state' .* not all in the file"),
        ([torch.sparse_coo_tensor([[0], [0]], [1.0], (9, 9))], "the tensor '0' .* is sparse"),
        ({"state": torch.empty(9, device="meta")}, "the tensor 'state' .* not all in the file"),
        (in_itself(), "over 50 levels"),
    ],
)
def test_a_small_file_with_a_huge_content_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").stat().st_size < 10**4
    with pytest.raises(UnreadableError, match=message):
        read_torch_file(tmp_path / "a.ckpt")


def test_many_names_for_the_same_values_are_refused(tmp_path):
    whole = torch.zeros(2000, 2000, dtype=torch.half)
    torch.save({f"{number}": whole.view(-1)[number:] for number in range(200)}, tmp_path / "a.ckpt")
    with pytest.raises(UnreadableError, match="share their values so often"):
        read_torch_file(tmp_path / "a.ckpt")


def test_parts_of_a_tensor_and_tensors_that_share_memory_are_read(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": whole.t(), "b": whole[:, 1], "c": whole, "d": torch.zeros(0), "e": [whole] * 3}, tmp_path / "a")
    assert read_torch_file(tmp_path / "a")["b"].tolist() == [1, 4]


def test_records_that_overlap_are_refused(tmp_path):
    """Many names for the same bytes: a small file would fill the memory, too."""
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data", bytes(10**4))
        archive.filelist.extend(archive.filelist * 9)
    with pytest.raises(UnreadableError, match="its records overlap"):
        read_torch_file(path)
