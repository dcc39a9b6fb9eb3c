import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from headstart.datasets import download
from headstart.datasets.sst2 import SST2, unpack
from headstart.errors import UsageError

HEADER = "sentence\tlabel\n"
TRAIN = "".join(f'"film {i} \t{i % 2}\n' for i in range(40))  # GLUE's phrases end in a space, some begin with a quote
DEV = "".join(f"test film {i}\t{i % 2}\n" for i in range(6))
FILES = {
    "SST-2/train.tsv": HEADER + TRAIN,
    "SST-2/dev.tsv": HEADER + DEV,
    "SST-2/test.tsv": "index\tsentence\n0\tno label\n",
    "SST-2/original/README.txt": "x",
}


def zipped(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


CONTENT = zipped(FILES)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Serves the archive; `asked` lists the requests."""
    monkeypatch.setattr(download, "WAITS_SECONDS", ())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            http.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.asked, http.url = [], f"http://127.0.0.1:{http.server_port}/SST-2.zip"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


def ready(root, **options) -> SST2:
    data = SST2(root=str(root), num_workers=0, **options)
    data.prepare_data()
    data.setup()
    return data


def test_download(tmp_path, server):
    root = tmp_path / "data" / "sst2"
    for _ in range(2):
        data = ready(root, url=server.url, sha256=SHA256, val_fraction=0.1)
        assert data.classes == ["negative", "positive"]
        assert data.num_samples == {"train": 36, "val": 4, "test": 6}
        assert data.samples.load(0) == '"film 0 '
        assert data.samples.targets[:2] == [0, 1]
    assert server.asked == ["/SST-2.zip"]
    assert sorted(path.name for path in root.iterdir()) == ["dev.tsv", "train.tsv"]
    assert sorted(path.name for path in root.parent.iterdir()) == ["sst2", "sst2.lock"]


def test_wrong_checksum(tmp_path, server):
    with pytest.raises(UsageError, match=f"expected {'0' * 64} but got {SHA256}"):
        ready(tmp_path / "sst2", url=server.url, sha256="0" * 64)
    assert not (tmp_path / "sst2").exists()


@pytest.mark.parametrize("header", ["", HEADER])
@pytest.mark.parametrize("inside", ["", "SST-2"])
def test_a_folder_that_is_there(tmp_path, header, inside):
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    (folder / "train.tsv").write_text(header + TRAIN)
    (folder / "dev.tsv").write_text(header + DEV)
    (folder / "test.tsv").write_text(FILES["SST-2/test.tsv"])
    data = ready(tmp_path)
    assert data.brought == {"train", "test"}
    assert data.num_samples == {"train": 34, "val": 6, "test": 6}


def test_other_labels_are_left_out(tmp_path):
    (tmp_path / "train.tsv").write_text(HEADER + TRAIN + "what\t-1\n")
    assert ready(tmp_path).bad == {"train.tsv:42": "label '-1', which is none of 0, 1"}


def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(UsageError, match=rf"has neither train.tsv nor dev.tsv.* remove {tmp_path} or"):
        ready(tmp_path)


def test_an_archive_without_the_files(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped({"SST-2/README": "x"}))
    with pytest.raises(UsageError, match=r"cannot unpack .*x\.zip"):
        unpack(tmp_path / "x.zip", tmp_path / "sst2")
    assert not (tmp_path / "sst2").exists()


@pytest.mark.real
def test_the_real_phrases(real):
    folder = real / "data" / "sst2"
    if not folder.is_dir():
        pytest.skip("no data/sst2 there")
    data = ready(folder, val_fraction=0.1)
    assert data.classes == ["negative", "positive"]
    assert data.num_samples["test"] == 872
    assert not data.bad
    lines = sum((folder / name).read_bytes().count(b"\t") for name in ("train.tsv", "dev.tsv"))
    assert len(data.samples) in (lines, lines - 2)  # with or without headers: no row is lost
