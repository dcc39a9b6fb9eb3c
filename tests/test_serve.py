"""`src/serve.py`: the endpoint on good and bad requests, and the process."""

import asyncio
import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

pytest.importorskip("fastapi", reason="serving needs the extra 'serve'")
import uvicorn
from fastapi.testclient import TestClient

from headstart.cli.conf_files import CONF
from headstart.cli.schemas import check_serve, host_names
from headstart.errors import UsageError
from headstart.inference.app import Model, build_app
from headstart.inference.classifier import Classifier
from headstart.inference.facts import facts_of
from headstart.inference.guards import WAITING, TimedProtocol
from headstart.inference.server import device_of
from headstart.tasks import checkpoint
from headstart.training.run import train

ROOT = CONF.parent
HERE = "http://127.0.0.1:8000"


def file_of(mode="RGB", form="PNG", size=(40, 30), **options):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    stream = io.BytesIO()
    picture.convert(mode).save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One for all: serving changes nothing in it."""
    folder = tmp_path_factory.mktemp("run")
    words = ("data=fake", "data.num_samples=40", "data.num_classes=3", "data.image_size=16", "model.image_size=16",
             "trainer=cpu", "trainer.max_epochs=1", "test=false", "cache=off", "logger=none")  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(compose("train", [f"paths.run={folder}", *words]))
    return folder


@pytest.fixture
def model(run):
    task, _ = checkpoint.load_task(run / "checkpoints/best.ckpt")
    return Model(Classifier(task), torch.device("cpu"))


@pytest.fixture
def client(model):
    return TestClient(build_app(model, max_bytes=20_000, top_k=2, maps=True), base_url=HERE)


@pytest.mark.parametrize("options", [
    {}, {"form": "JPEG"}, {"mode": "RGBA"}, {"mode": "CMYK", "form": "TIFF"}, {"mode": "P", "form": "GIF"},
])  # fmt: skip
def test_an_answer_is_what_the_classifier_says(options, client, run):
    body = file_of(**options)
    answer = client.post("/predict", content=body, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    task, _ = checkpoint.load_task(run / "checkpoints/best.ckpt")
    from headstart.inference.batches import prepared

    with torch.no_grad():
        (expected,) = Classifier(task)(prepared(io.BytesIO(body), task.backbone.preprocess)[None])
    values, places = expected.topk(2)
    found = answer.json()["classes"]
    assert [row["class"] for row in found] == [task.classes[place] for place in places]
    assert [row["probability"] for row in found] == pytest.approx(values.tolist(), abs=1e-5)


def test_a_map_is_a_picture_of_the_size_of_the_photo(client):
    pytest.importorskip("captum")
    answer = client.post("/predict?map=true", content=file_of(), headers={"Content-Type": "image/png"}).json()
    kind, data = answer["map"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 30)


def test_a_form_may_hold_several_files(client):
    files = [
        ("file", ("a.png", file_of())),
        ("file", ("b.txt", b"no picture")),
        ("other", ("c.jpg", file_of(form="JPEG"))),
    ]
    good, bad, other = client.post("/predict", files=files).json()["files"]
    assert [each["file"] for each in (good, bad, other)] == ["a.png", "b.txt", "c.jpg"]
    alone = client.post("/predict", content=file_of(), headers={"Content-Type": "image/png"}).json()
    assert good["classes"] == alone["classes"]
    assert bad["error"] == "this picture cannot be read: not a picture (text?)"
    assert len(other["classes"]) == 2
    refused = client.post("/predict", files=files[1:2])
    assert (refused.status_code, refused.json()["detail"][:35]) == (422, "b.txt: this picture cannot be read:")
    assert client.post("/predict", files=[files[0]] * 8).status_code == 413, "the limit is that of all files together"
    without = client.post("/predict", data={"x": "y"}, files={"z": (None, "no file")})
    assert (without.status_code, "the form holds no file" in without.json()["detail"]) == (400, True)


def test_the_page_names_the_model_its_accuracy_and_its_classes(run, monkeypatch):
    monkeypatch.setattr("headstart.inference.facts.known_metrics", lambda _: {"val/acc": 0.5, "test/acc": 0.9123})
    task, trained = checkpoint.load_task(run / "checkpoints/best.ckpt")
    task.classes = ["<cat>", "dog", "{{TERMINAL}}"]
    facts = facts_of(task, trained, run / "checkpoints/best.ckpt")
    app = build_app(Model(Classifier(task), torch.device("cpu")), 20_000, 2, False, facts=facts)
    page = TestClient(app, base_url=HERE).get("/").text
    about = "<strong>TinyResNet</strong>, accuracy 0.912 on test, 3 classes: &lt;cat&gt;, dog, {{TERMINAL}}<"
    assert about in page
    assert "curl -F file=@cat.jpg" in page


@pytest.mark.parametrize(("body", "kind", "code", "told"), [
    (b"no picture", "image/png", 422, "cannot be read: not a picture"),
    (file_of()[:200], "image/png", 422, "cannot be read"),
    (b"", "image/png", 400, "the request is empty"),
    (b"x" * 20_001, "image/png", 413, "larger than 0.02 MB"),
    (file_of(), "text/plain", 415, "is not a picture"),
    (file_of(), "application/json", 415, "only the bytes of the file"),
    (file_of(), "multipart/form-data", 400, "boundary"),
    (b"--x\r\n\r\nno end", "multipart/form-data; boundary=x", 400, "Content-Disposition"),
])  # fmt: skip
def test_a_bad_request_is_told_what_is_wrong(body, kind, code, told, client):
    answer = client.post("/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == code
    assert told in answer.json()["detail"]
    assert client.post("/predict", content=file_of(), headers={"Content-Type": "image/png"}).status_code == 200


def sent_in_parts(model, messages):
    """The status of an answer to a request that arrives as these messages, and how many of them were waited for."""
    app = build_app(model, max_bytes=20_000, top_k=2, maps=False)
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"",
             "headers": [(b"host", b"127.0.0.1")]}  # fmt: skip
    seen, answers = [], []

    async def receive():
        seen.append(messages[len(seen)])
        return seen[-1]

    async def send(message):
        answers.append(message)

    asyncio.run(app(scope, receive, send))
    return answers[0]["status"], len(seen)


def test_a_body_that_does_not_tell_its_size_is_cut_off(model):
    parts = [{"type": "http.request", "body": b"x" * 5000, "more_body": True}] * 100
    assert sent_in_parts(model, parts) == (413, 5), "four parts may come, with the fifth it is too large"


def test_a_client_that_goes_away_is_no_fault(model):
    parts = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    assert sent_in_parts(model, parts) == (400, 2)


def test_classes_whose_names_are_no_text_are_told(run):
    task, _ = checkpoint.load_task(run / "checkpoints/best.ckpt")
    task.classes = ["a", os.fsdecode(b"no \xff"), "c"]
    app = build_app(Model(Classifier(task), torch.device("cpu")), 20_000, 3, maps=False)
    client = TestClient(app, base_url=HERE)
    answer = client.post("/predict", content=file_of(), headers={"Content-Type": "image/png"})
    assert {row["class"] for row in answer.json()["classes"]} == {"a", "no ?", "c"}
    assert client.get("/health").json()["classes"] == ["a", "no ?", "c"]


def test_what_is_asked_wrongly_has_a_reason_in_words(client):
    answer = client.post("/predict?map=maybe", content=file_of(), headers={"Content-Type": "image/png"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("map=maybe: Input should be a valid boolean")
    assert client.get("/predict").status_code == 405
    assert (client.head("/").status_code, client.head("/").text) == (200, "")


def test_of_many_requests_one_picture_is_decoded_at_a_time(model, monkeypatch):
    """Each may take a gigabyte."""
    at_once, most = [], []

    def slow(*given):
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.pop()
        return torch.zeros(3, 16, 16, dtype=torch.uint8)

    monkeypatch.setattr("headstart.inference.app.prepared", slow)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: model(b"", 2, False), range(8)))
    assert max(most) == 1
    assert all(answer == answers[0] for answer in answers)


def test_without_captum_maps_are_refused_and_not_offered(model):
    client = TestClient(build_app(model, 20_000, 5, maps=False), base_url=HERE)
    answer = client.post("/predict?map=true", content=file_of(), headers={"Content-Type": "image/png"})
    assert answer.status_code == 400
    assert 'pip install -e ".[explain]"' in answer.json()["detail"]
    assert "maps = false" in client.get("/").text


@pytest.mark.parametrize(("headers", "code"), [
    ({}, 200),
    ({"Host": "localhost:8000"}, 200),
    ({"Host": "192.168.1.7:8000"}, 200),
    ({"Host": "[::1]:8000"}, 200),
    ({"Host": socket.gethostname()}, 200),
    ({"Host": "LOCALHOST.:8000"}, 200),
    ({"Host": "[::1"}, 403),
    ({"Origin": "http://[::1"}, 403),
    ({"Host": "evil.example"}, 403),
    ({"Host": "127.0.0.1.evil.example:8000"}, 403),
    ({"Host": ""}, 403),
    ({"Origin": HERE}, 200),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://127.0.0.1:9999"}, 403),
])  # fmt: skip
def test_other_sites_may_not_use_it(headers, code, client):
    """Neither by a name that they make point to this machine, nor from their own pages."""
    answer = client.post("/predict", content=file_of(), headers={"Content-Type": "image/png", **headers})
    assert answer.status_code == code, answer.text
    assert client.get("/health", headers=headers).status_code == code


def test_other_names_are_allowed_by_a_setting(model):
    app = build_app(model, 20_000, 2, maps=False, hosts=["Cats.example.org"])
    client = TestClient(app, base_url="http://cats.example.org")
    assert client.get("/health").status_code == 200
    refused = client.get("/health", headers={"Host": "dogs.example.org"})
    assert refused.status_code == 403
    assert "hosts=<name>" in refused.json()["detail"]


def test_the_names_of_the_machine_are_asked_for_once(model, monkeypatch):
    """A name server may take seconds."""
    asked = []
    monkeypatch.setattr(socket, "getfqdn", lambda: asked.append(1) or "this.example.org")
    client = TestClient(build_app(model, 20_000, 2, maps=False), base_url="http://this.example.org")
    assert [client.get("/health").status_code for _ in range(3)] == [200] * 3
    assert len(asked) == 1


def test_a_small_file_with_a_huge_picture_is_refused_before_it_is_decoded(model, monkeypatch):
    monkeypatch.setattr(model, "max_pixels", 50_000_000)
    monkeypatch.setattr("headstart.inference.app.prepared", lambda *_: pytest.fail("it was decoded"))
    client = TestClient(build_app(model, 20_000, 5, maps=False), base_url=HERE)
    huge = bytearray(file_of(form="GIF"))
    huge[6:10] = (10_000).to_bytes(2, "little") + (6_000).to_bytes(2, "little")
    answer = client.post("/predict", content=bytes(huge), headers={"Content-Type": "image/gif"})
    assert answer.status_code == 422
    assert "too large: 10000 x 6000 pixels, at most 50 million are decoded" in answer.json()["detail"]


def test_when_too_many_wait_more_are_refused_and_health_still_answers(model, monkeypatch):
    blocked = threading.Event()

    def wait(*_):
        assert blocked.wait(30)
        return torch.zeros(3, 16, 16, dtype=torch.uint8)

    monkeypatch.setattr("headstart.inference.app.prepared", wait)
    with TestClient(build_app(model, 20_000, 5, maps=False), base_url=HERE) as client, ThreadPoolExecutor(20) as pool:

        def ask(_):
            return client.post("/predict", content=file_of(), headers={"Content-Type": "image/png"}).status_code

        asked = [pool.submit(ask, i) for i in range(20)]
        while sum(each.done() for each in asked) < 20 - WAITING:
            time.sleep(0.01)
        assert client.get("/health").status_code == 200
        blocked.set()
        assert Counter(each.result() for each in asked) == {200: WAITING, 503: 20 - WAITING}


def test_slow_uploads_keep_nobody_out(model):
    app = build_app(model, max_bytes=20_000, top_k=2, maps=False)
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"",
             "headers": [(b"host", b"127.0.0.1")]}  # fmt: skip

    async def upload(receive):
        answers = []

        async def send(message):
            answers.append(message)

        await app(dict(scope), receive, send)
        return answers[0]["status"]

    async def never():
        await asyncio.sleep(100)

    async def whole():
        return {"type": "http.request", "body": file_of()}

    async def all_uploads():
        slow = [asyncio.create_task(upload(never)) for _ in range(WAITING)]
        await asyncio.sleep(0.1)
        status = await upload(whole)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return status

    assert asyncio.run(all_uploads()) == 200


def test_a_picture_that_does_not_arrive_is_given_up(model, monkeypatch):
    monkeypatch.setattr("headstart.inference.app.BODY_SECONDS", 0.1)
    app = build_app(model, max_bytes=20_000, top_k=2, maps=False)
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"",
             "headers": [(b"host", b"127.0.0.1")]}  # fmt: skip
    answers = []

    async def receive():
        await asyncio.sleep(5)

    async def send(message):
        answers.append(message)

    start = time.monotonic()
    asyncio.run(app(scope, receive, send))
    assert answers[0]["status"] == 408
    assert time.monotonic() - start < 4


def test_a_connection_that_never_asks_is_closed(model, monkeypatch):
    monkeypatch.setattr("headstart.inference.guards.HEADER_SECONDS", 0.3)
    with served(model) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")  # and no more
        assert slow.recv(100) == b""


def test_a_connection_that_keeps_asking_stays_open(model, monkeypatch):
    monkeypatch.setattr("headstart.inference.guards.HEADER_SECONDS", 0.5)
    with served(model) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.connect()
        kept = connection.sock
        for _ in range(12):  # 1.2 seconds
            connection.request("GET", "/health")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            assert connection.sock is kept, "http.client would silently connect again"
            time.sleep(0.1)
        connection.close()


@contextmanager
def served(model):
    """A server with the protocol of `src/serve.py`; gives its port."""
    app = build_app(model, max_bytes=20_000, top_k=2, maps=False)
    config = uvicorn.Config(app, port=0, log_level="warning", http=TimedProtocol)
    bound, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def test_the_page_brings_everything_with_it(client):
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "{{" not in answer.text
    assert not re.search(r"(src|href)=[\"']https?:", answer.text)
    assert client.get("/health").json()["input"]["shape"] == ["batch", 3, 16, 16]


@pytest.mark.parametrize(("words", "told"), [
    (["run=x", "port=99999"], "port=99999: give a whole number from 0 to 65535"),
    (["run=x", "max_mb=0"], "max_mb=0"),
    (["run=x", "hosts=['http://a.b']"], "hosts=http://a.b: give a name without http://"),
    (["run=x", "hosts='http://a.b'"], "hosts=http://a.b: give a name without http://"),
    (["run=x", "hosts={a:b}"], "give a name without http://"),
    (["run=x", "accelerator=cuda"], "choose one of auto, cpu, gpu, mps"),
    ([], "add run=<run>"),
])  # fmt: skip
def test_mistakes(words, told):
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(UsageError, match=re.escape(told)):
        check_serve(compose("serve", words))


@pytest.mark.parametrize(
    ("words", "names"),
    [([], []), (["hosts=a.b"], ["a.b"]), (["hosts=[a.b]"], ["a.b"]), (["hosts=[a.b,c]"], ["a.b", "c"])],
)
def test_one_name_needs_no_brackets(words, names):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("serve", ["run=x", *words])
    check_serve(cfg)
    assert host_names(cfg) == names


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there():
    assert device_of("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="accelerator=gpu: this machine has none"):
        device_of("gpu")


@pytest.mark.slow
def test_as_a_process(run):
    command = [sys.executable, "src/serve.py", f"run={run}", "port=0", "accelerator=cpu"]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        address = next(found for line in server.stderr if (found := re.search(r"http://\S+:\d+", line))).group()
        request = urllib.request.Request(f"{address}/predict", file_of(), {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.load(answer)["classes"]) == 3
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
    finally:
        server.kill()
