"""Files of models on a hub, which is a server on this machine."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tiny_text

from headstart.backbones.hub import ModelFiles
from headstart.backbones.text_encoder import TextEncoder
from headstart.errors import UsageError

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "some/encoder"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model, which the tests may change; it counts the requests for each file."""
    place = tiny_text.write_model(tmp_path / "on_the_hub")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.wfile.write(self.answer())

        def answer(self):
            file = place / self.path.rpartition("/")[2]
            asked.append((self.command, file.name))
            known = NAME in self.path
            content = file.read_bytes() if known and file.is_file() else b""
            self.send_response(200 if content else 404)
            if not content:
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")[2]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{constants.ENDPOINT}/{{repo_id}}{template}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    yield place, asked
    server.shutdown()
    server.server_close()


def test_files_are_downloaded_once(hub):
    _, asked = hub
    first = TextEncoder(NAME, weights=None)
    requests = len(asked)
    assert TextEncoder(NAME, weights=None).preprocess == first.preprocess
    assert ("GET", "tokenizer.json") in asked
    assert len(asked) == requests, "the second time nothing is asked for"


def test_a_model_without_weights_is_told(hub):
    with pytest.raises(UsageError, match=r"some/encoder has no model.safetensors on the Hugging Face hub"):
        TextEncoder(NAME)


def test_a_model_that_does_not_exist_is_told(hub):
    with pytest.raises(UsageError, match=r"model.name=other/encoder: the Hugging Face hub has no such model"):
        TextEncoder("other/encoder")


def test_without_a_network_the_message_says_what_to_download_and_where_to(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    with pytest.raises(UsageError) as raised:
        ModelFiles(NAME).config()
    message = str(raised.value)
    assert "cannot download config.json of some/encoder from http://127.0.0.1:9" in message
    assert f"hf download {NAME}, which keeps it in {tmp_path / 'hub_cache'}" in message
    assert "model.name=<a folder with config.json, tokenizer.json and model.safetensors>" in message
