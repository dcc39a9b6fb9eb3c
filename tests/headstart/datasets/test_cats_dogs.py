import csv
import errno
import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.datasets import download
from headstart.datasets.cats_dogs import CatsDogs, unpack_pictures
from headstart.errors import UsageError


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def put(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed))
    return root


def some(pattern: str, count: int = 5) -> list[str]:
    return [pattern.format(i) for i in range(count)]


def ready(root: Path, **options) -> CatsDogs:
    data = CatsDogs(root=str(root), num_workers=0, **options)
    data.prepare_data()
    data.setup()
    return data


LAYOUTS = {
    "split folders": [
        *some("train/cat/{}.jpg"),
        *some("train/dog/{}.jpg"),
        *some("val/cat/{}.jpg", 2),
        "val/dog/0.jpg",
    ],
    "plural": [
        *some("train/cats/{}.jpg"),
        *some("train/Dogs/{}.jpg"),
        "validation/cats/1.jpg",
        "validation/dogs/1.jpg",
    ],
    "class folders": [*some("dog/{}.jpg"), *some("cat/{}.jpg")],
    "class folders beside others": [*some("dog/{}.jpg"), *some("cat/{}.jpg"), *some("test1/{}.jpg")],
    "archive": [*some("PetImages/Cat/{}.jpg"), *some("PetImages/Dog/{}.jpg")],
    "inside of the archive": [*some("Cat/{}.jpg"), *some("Dog/{}.jpg")],
    "flat": [*some("cat.{}.jpg"), *some("dog.{}.jpg")],
    "flat beside test": [*some("cat.{}.jpg"), *some("dog.{}.jpg"), *some("test/{}.jpg")],
    "flat train": [*some("train/cat.{}.jpg"), *some("train/dog.{}.jpg")],
    "flat train beside test": [*some("train/cat.{}.jpg"), *some("train/dog.{}.jpg"), *some("test/{}.jpg")],
    "flat train beside test1": [*some("train/cat.{}.jpg"), *some("train/dog.{}.jpg"), *some("test1/{}.jpg")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    files = LAYOUTS[layout]
    data = ready(put(tmp_path, *files))
    assert data.classes == ["cat", "dog"]
    labelled = sorted(name for name in files if "cat" in name.lower() or "dog" in name.lower())
    assert sorted(data.samples.names) == labelled  # those without a label are in no split
    for name, target in zip(data.samples.names, data.samples.targets, strict=True):
        assert target == ("dog" in name.lower()), name
    assert data.num_samples["train"] >= 6
    assert data.num_samples["val"]
    assert data.num_samples["test"]


def test_labelled_test_is_used(tmp_path):
    files = [*some("train/cat.{}.jpg"), *some("train/dog.{}.jpg"), "test/cat.7.jpg", "test/dog.8.jpg"]
    data = ready(put(tmp_path, *files))
    assert [data.samples.names[i] for i in data.splits["test"]] == ["test/cat.7.jpg", "test/dog.8.jpg"]


def test_class_without_pictures(tmp_path):
    with pytest.raises(UsageError, match="no readable training sample of class 'dog'"):
        ready(put(tmp_path, *some("cat/{}.jpg")))


@pytest.mark.parametrize("files", [[], ["photo.jpg"], ["birds/1.jpg"], ["train/1.jpg", "test/2.jpg"]])
def test_folder_without_cats_and_dogs_is_not_downloaded_into(tmp_path, files, server):
    root = tmp_path / "pets"
    root.mkdir()
    put(root, *files)
    before = sorted(root.rglob("*"))
    with pytest.raises(UsageError, match=rf"neither cat and dog folders .* remove {root}"):
        ready(root, url=server.url, sha256=server.sha256)
    assert sorted(root.rglob("*")) == before
    assert server.asked == 0


class Server:
    """Serves one archive like Microsoft's: readable pictures, a zero-byte one, one that is none, and other files."""

    def __init__(self) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for i in range(6):
                archive.writestr(f"PetImages/Cat/{i}.jpg", jpeg(i))
                archive.writestr(f"PetImages/Dog/{i}.jpg", jpeg(100 + i))
            archive.writestr("PetImages/Cat/666.jpg", b"")
            archive.writestr("PetImages/Dog/11702.jpg", b"<html>")
            archive.writestr("PetImages/Cat/Thumbs.db", b"x")
            archive.writestr("MSR-LA - 3467.docx", b"x")
        self.content = stream.getvalue()
        self.sha256 = hashlib.sha256(self.content).hexdigest()
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/pets.zip"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", ())
    server = Server()
    threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_download(tmp_path, server, caplog):
    root, run = tmp_path / "data" / "pets", tmp_path / "run"
    data = ready(root, url=server.url, sha256=server.sha256, split_file=str(run / "split.csv"))
    assert data.classes == ["cat", "dog"]
    assert len(data.samples) == 12
    bad = ["PetImages/Cat/666.jpg", "PetImages/Dog/11702.jpg"]
    assert [row[0] for row in csv.reader((run / "bad_files.csv").open())] == ["name", *bad]
    assert "Cat/666.jpg: empty file" in caplog.text
    assert not list(root.rglob("*.d*"))  # pictures only
    assert not (root.parent / "pets.zip").exists()
    assert server.asked == 1
    again = ready(root, url=server.url, sha256=server.sha256, split_file=str(run / "split.csv"))
    assert server.asked == 1
    assert again.splits == data.splits


def test_archive_put_by_hand_is_used_and_kept(tmp_path, server):
    (tmp_path / "pets.zip").write_bytes(server.content)
    assert len(ready(tmp_path / "pets", url=server.url, sha256=server.sha256).samples) == 12
    assert (tmp_path / "pets.zip").exists()
    assert server.asked == 0


def test_wrong_checksum(tmp_path, server):
    with pytest.raises(UsageError, match=f"expected {'0' * 64} but got {server.sha256}"):
        ready(tmp_path / "pets", url=server.url, sha256="0" * 64)
    assert not (tmp_path / "pets").exists()
    assert not (tmp_path / "pets.zip").exists()


def test_an_archive_with_names_outside_the_folder_writes_nothing_there(tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in ("PetImages/Cat/0.jpg", "../../evil.jpg", "/evil.jpg"):
            archive.writestr(name, jpeg(0))
    root = tmp_path / "a" / "b" / "pets"
    root.parent.mkdir(parents=True)
    unpack_pictures(tmp_path / "pets.zip", root)
    assert (root / "PetImages/Cat/0.jpg").read_bytes() == jpeg(0)
    assert all(path.is_relative_to(root) for path in tmp_path.rglob("*.jpg"))
    assert not Path("/evil.jpg").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_unpacking_that_stops_leaves_no_folder(tmp_path, server, monkeypatch, error):
    (tmp_path / "pets.zip").write_bytes(server.content)
    extract, calls = zipfile.ZipFile.extract, []

    def stop_at_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise error
        return extract(*args)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", stop_at_third)
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else UsageError):
            ready(tmp_path / "pets", url=server.url, sha256=server.sha256)
    assert {path.name for path in tmp_path.iterdir()} <= {"pets.zip", "pets.lock"}
    assert len(ready(tmp_path / "pets", url=server.url, sha256=server.sha256).samples) == 12


def test_a_file_that_is_no_zip_archive(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"<html>")
    with pytest.raises(UsageError, match=r"cannot unpack .*pets.zip .*not a zip file"):
        unpack_pictures(tmp_path / "pets.zip", tmp_path / "pets")
    assert [path.name for path in tmp_path.iterdir()] == ["pets.zip"]


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", ())
    url = "http://127.0.0.1:1/pets.zip"
    with pytest.raises(UsageError) as caught:
        ready(tmp_path / "pets", url=url)
    assert url in str(caught.value)
    assert str(tmp_path / "pets.zip") in str(caught.value)
    assert not (tmp_path / "pets").exists()
