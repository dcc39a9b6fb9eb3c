"""A small hub on this machine, which answers as the Hugging Face hub does."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Hub:
    """The repositories of the server.

    Attributes:
        root: `<owner>/<name>/<file>`.
        asked: each request, its method and path.
        private: repository -> whether it is private.
    """

    def __init__(self, root: Path):
        self.root, self.asked, self.private = root, [], {}

    def repository_and_file(self, path: str) -> tuple[str, Path | None]:
        """The repository of `/<owner>/<name>/resolve/<revision>/<file>`, and the file if there is one."""
        owner, name, _, _, file = path.lstrip("/").split("/", 4)
        found = self.root / owner / name / file
        return f"{owner}/{name}", found if found.is_file() else None

    def take(self, repository: str, lines: list[dict]) -> None:
        """Writes the files of a commit."""
        for line in lines:
            if line["key"] == "file":
                target = self.root / repository / line["value"]["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(line["value"]["content"]))


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.file()

        def do_GET(self):
            if self.path.startswith("/api/models/"):
                self.noted()
                repository = "/".join(self.path.split("?")[0].split("/")[3:5])
                known = {"id": repository, "private": hub.private[repository], "sha": "1" * 40, "siblings": []}
                return self.json(known)
            return self.wfile.write(self.file())

        def do_POST(self):
            self.noted()
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self.path == "/api/repos/create":
                given = json.loads(body)
                repository = f"{given['organization']}/{given['name']}"
                exists = repository in hub.private
                hub.private.setdefault(repository, given.get("private", given.get("visibility") == "private"))
                return self.json({"url": f"http://{self.headers['Host']}/{repository}"}, 409 if exists else 200)
            repository = "/".join(self.path.split("/")[3:5])
            if "/preupload/" in self.path:
                files = json.loads(body)["files"]
                modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                return self.json({"files": modes})
            if "/commit/" not in self.path:  # the check of the header of a model card
                return self.json({"warnings": [], "errors": []})
            hub.take(repository, list(map(json.loads, body.splitlines())))
            done = f"http://{self.headers['Host']}/{repository}/commit/1"
            return self.json({"success": True, "commitOid": "1" * 40, "commitUrl": done})

        def noted(self):
            hub.asked.append((self.command, self.path))

        def json(self, content, status=200):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def file(self):
            """The headers of a file, and its content."""
            if self.path.count("/") < 5:  # only whether there is a server
                self.json({})
                return b""
            self.noted()
            repository, found = hub.repository_and_file(self.path)
            content = found.read_bytes() if found else b""
            self.send_response(200 if found else 404)
            if not found:
                known = (hub.root / repository).is_dir()
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            names = sorted(str(file) for file in (hub.root / repository).rglob("*"))  # other files, another commit
            self.send_header("X-Repo-Commit", hashlib.sha1("".join(names).encode()).hexdigest())
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def log_message(self, *_):
            pass

    return Handler


@contextmanager
def serving(root: Path, monkeypatch):
    """A hub with the repositories in a folder, as the one that `huggingface_hub` uses."""
    from huggingface_hub import constants

    hub = Hub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")[2]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{constants.ENDPOINT}/{{repo_id}}{template}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root.with_name("hub_cache")))
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
