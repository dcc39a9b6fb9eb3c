import hashlib
import socket
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from headstart.datasets import download
from headstart.datasets.download import fetch
from headstart.errors import UsageError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves CONTENT, misbehaves as told, and remembers what it was asked and how many bytes it gave."""

    def __init__(self) -> None:
        self.has_ranges, self.says_length = True, True
        self.closes_after: list[int] = []  # for one request each
        self.statuses: list[int] = []  # for one request each
        self.ranges: list[str | None] = []
        self.served = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.bin"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.ranges.append(handler.headers.get("Range"))
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        start = int(self.ranges[-1][len("bytes=") : -1]) if self.ranges[-1] and self.has_ranges else 0
        if start >= len(CONTENT):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.says_length:
            handler.send_header("Content-Length", str(len(CONTENT) - start))
        handler.end_headers()
        body = CONTENT[start:][: self.closes_after.pop(0) if self.closes_after else None]
        self.served += len(body)
        handler.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", ())
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 5.0)
    monkeypatch.setattr(download, "CHUNK_BYTES", 1000)  # of which each interruption below is a multiple
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "new" / "file.bin"


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def leave_part(target: Path, content: bytes) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(content)


@pytest.mark.parametrize("sha256", [SHA256, SHA256.upper(), None])
@pytest.mark.parametrize("says_length", [True, False])
def test_fetches_whole_file_and_leaves_nothing_else(server, target, sha256, says_length):
    server.says_length = says_length
    assert fetch(server.url, target, sha256, size_hint=5) == target
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_existing_file_is_verified_and_not_fetched_again(server, target):
    fetch(server.url, target, SHA256)
    fetch(server.url, target, SHA256)
    assert server.ranges == [None]


def test_existing_file_with_other_content_is_kept_and_named(server, target):
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(UsageError, match=f"file.bin has SHA-256 .*expected {SHA256}: remove or rename"):
        fetch(server.url, target, SHA256)
    assert target.read_bytes() == b"mine"
    assert server.ranges == []


def test_same_command_resumes_where_the_server_closed(server, target):
    server.closes_after = [100_000]
    with pytest.raises(UsageError, match=r"closed the connection.*run the same command again to resume"):
        fetch(server.url, target, SHA256)
    assert not target.exists()
    assert part_of(target).read_bytes() == CONTENT[:100_000]
    fetch(server.url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert server.served == len(CONTENT)
    assert not part_of(target).exists()


def test_an_interruption_by_the_person_leaves_what_has_arrived(server, target, monkeypatch):
    class Bar:
        n = 0

        def update(self, size):
            self.n += size
            if self.n == 70_000:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "progress_bar", lambda *args, **options: nullcontext(Bar()))
        with pytest.raises(KeyboardInterrupt):
            fetch(server.url, target, SHA256)
    assert list(target.parent.iterdir()) == [part_of(target)]
    fetch(server.url, target, SHA256)
    assert server.ranges == [None, "bytes=70000-"]


def test_attempts_within_one_call_go_on_and_are_bounded(server, target, monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", (0.0, 0.0))
    server.closes_after = [50_000, 50_000, 50_000]
    with pytest.raises(UsageError, match="150,000 bytes"):
        fetch(server.url, target, SHA256)
    assert server.ranges == [None, "bytes=50000-", "bytes=100000-"]
    server.closes_after, server.statuses = [50_000], [503]
    fetch(server.url, target, SHA256)
    assert server.ranges[3:] == ["bytes=150000-", "bytes=150000-", "bytes=200000-"]
    assert server.served == len(CONTENT)


def test_server_without_ranges_makes_us_start_anew(server, target):
    server.has_ranges = False
    leave_part(target, CONTENT[:1000])
    fetch(server.url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert server.served == len(CONTENT)


def test_part_that_is_already_whole_is_finished(server, target):
    leave_part(target, CONTENT)
    fetch(server.url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert server.served == 0


def test_part_longer_than_the_file_is_fetched_anew(server, target, monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", (0.0,))
    leave_part(target, CONTENT + b"too much")
    fetch(server.url, target, SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("leftover", [b"", b"wrong beginning"])
def test_wrong_checksum_is_removed_and_both_are_named(server, target, leftover):
    leave_part(target, leftover)
    wrong = "0" * 64 if not leftover else SHA256
    with pytest.raises(UsageError, match="Deleted download") as caught:
        fetch(server.url, target, wrong)
    given = hashlib.sha256(leftover + CONTENT[len(leftover) :]).hexdigest()
    assert f"expected {wrong} but got {given}" in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_404_is_told_at_once_and_costs_no_part(server, target, monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", (60.0,))  # would show
    server.statuses = [404]
    leave_part(target, CONTENT[:1000])
    with pytest.raises(UsageError, match="404") as caught:
        fetch(server.url, target, SHA256)
    assert server.url in str(caught.value)
    assert str(target) in str(caught.value)
    assert "resume" not in str(caught.value)
    assert part_of(target).read_bytes() == CONTENT[:1000]


def test_no_network_says_where_to_put_the_file(target, monkeypatch):
    monkeypatch.setattr(download, "WAITS_SECONDS", (0.0,))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.bin"
    with pytest.raises(UsageError, match="refused") as caught:
        fetch(url, target, SHA256)
    assert url in str(caught.value)
    assert f"put it at {target}" in str(caught.value)


def test_full_disk_is_told_before_anything_is_written(server, target, monkeypatch):
    usage = download.shutil.disk_usage(".")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage._replace(free=len(CONTENT) - 1))
    with pytest.raises(UsageError, match="299,999 bytes free, 300,000 are needed"):
        fetch(server.url, target, SHA256)
    assert not part_of(target).exists()
    leave = part_of(target)
    leave.write_bytes(CONTENT[:1])  # what is there needs no room
    fetch(server.url, target, SHA256)


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        fetch(server.url, tmp_path / "file" / "a.bin", SHA256)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "example.com/a.zip"])
def test_other_addresses_are_refused(url, target):
    with pytest.raises(UsageError, match="https://"):
        fetch(url, target, None)
