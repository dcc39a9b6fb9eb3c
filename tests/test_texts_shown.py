"""A run on texts is shown to people: evaluation, TensorBoard, report and the web application."""

import csv
import re
import shutil

import pytest
import torch
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_text import CLASSES, DECISIVE, on_reviews
from toy_texts import Tokens

from headstart.cli.conf_files import CONF
from headstart.cli.terminal import COLUMNS_OF_A_FILE
from headstart.errors import UsageError
from headstart.evaluation.evaluate import evaluate
from headstart.evaluation.explanations.attribution import has_captum
from headstart.report.build import report
from headstart.runs.directory import find_checkpoint
from headstart.tasks import checkpoint
from headstart.training.run import train

NASTY = "<script>alert(1)</script> superb"
HERE = "http://127.0.0.1:8000"


def asked(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the run is kept, so that it is trained once; each test has a copy."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def run(quick, kept, tmp_path, monkeypatch):
    """A run with some mistakes."""
    monkeypatch.setenv("HEADSTART_TRUST", "tiny_text")
    if kept.exists():
        shutil.copytree(kept, tmp_path / "run")
    else:
        train(on_reviews(quick("optimizer.lr=0.01", "trainer.max_epochs=3"), tmp_path, wrong=8))
        shutil.copytree(tmp_path / "run", kept)
    return tmp_path / "run"


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_evaluation_shows_the_texts(run, capsys):
    words = ["embedding=true", "neighbours=2"] + (["explain=2"] if has_captum() else [])
    evaluate(asked("evaluate", f"run={run}", *words), find_checkpoint(str(run)))
    folder = run / "evaluation_test"
    mistakes = rows(folder / "mistakes.csv")
    assert mistakes, "without a mistake this test shows nothing"
    assert all(set(row["text"].lower().strip(".").split()) & set(DECISIVE.values()) for row in mistakes)
    for name in ("mistakes", "neighbours"):
        assert mistakes[0]["text"] in (folder / f"{name}.html").read_text()
        assert not (folder / f"{name}.png").exists()
    assert len(rows(folder / "neighbours.csv")[0]["neighbour_text"].split()) > 3
    (metadata,) = (folder / "tensorboard").rglob("metadata.tsv")
    assert metadata.read_text().splitlines()[0] == "path\ttrue\tpredicted\ttext"
    table = capsys.readouterr().err
    shown = table[table.index("worst mistakes, ") :]
    assert " ".join(mistakes[0]["text"].split()[:2]) in shown
    assert max(map(len, table.splitlines())) <= COLUMNS_OF_A_FILE
    if has_captum():
        explained = rows(folder / "explanations.csv")
        assert {row["path"] for row in explained} == {row["path"] for row in mistakes[:2]}
        text = next(row["text"] for row in mistakes if row["path"] == explained[0]["path"])
        assert text[int(explained[0]["start"]) : int(explained[0]["end"])] == explained[0]["word"]
        assert 'class="for"' in (folder / "explanations.html").read_text()
    evaluate(asked("evaluate", f"run={run}", "worst=0"), find_checkpoint(str(run)))
    assert not list(folder.glob("*.html")), "a plain evaluation leaves no page of another"


def test_suspected_labels_come_with_their_texts(run):
    pytest.importorskip("cleanlab")
    evaluate(asked("evaluate", f"run={run}", "label_errors=true"), find_checkpoint(str(run)))
    errors = rows(run / "evaluation_test/label_errors.csv")
    assert errors
    assert all(len(row["text"].split()) > 3 for row in errors)
    assert errors[0]["text"] in (run / "evaluation_test/label_errors.html").read_text()


def test_tensorboard_has_tables_of_texts_and_no_pictures(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"val/confusion_matrix"}
    examples = shown(events, "train/examples/text_summary")
    assert len(examples.splitlines()) == 2 + 8
    assert any(f"| {name} |" in examples for name in CLASSES)
    assert "val/worst_mistakes/text_summary" in events.Tags()["tensors"]
    assert "true: " in shown(events, "val/worst_mistakes/text_summary")
    settings = (run / "tensorboard/hparams.yaml").read_text()
    assert "max_length" in settings
    assert "tokenizer:" not in settings, "the tokenizer is in the checkpoint, and no setting"


def test_the_mistakes_in_tensorboard_are_those_of_an_evaluation(run):
    """The batches are sorted by length: the logits must be put in the order of the labels."""
    evaluate(asked("evaluate", f"run={run}", "split=val"), find_checkpoint(str(run)))
    mistakes = rows(run / "evaluation_val/mistakes.csv")
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    table = shown(events, "val/worst_mistakes/text_summary").splitlines()[2:]
    assert len(table) == min(len(mistakes), 12)
    assert all(any(row["text"] in line for line in table) for row in mistakes[: len(table)])


def shown(events, tag):
    return events.Tensors(tag)[0].tensor_proto.string_val[0].decode()


def test_a_report_shows_examples_lengths_and_mistakes(run):
    path = find_checkpoint(str(run))
    words = ["neighbours=2"] + (["explain=2"] if has_captum() else [])
    evaluate(asked("evaluate", f"run={run}", *words), path)
    page, card = report(asked("report", f"run={run}"), path)
    html = page.read_text()
    assert html.count("<blockquote") > 2 * 4
    assert "Tokens per text: median" in html
    assert 'aria-label="Histogram of the lengths in tokens' in html
    mistakes = rows(run / "evaluation_test/mistakes.csv")
    if has_captum():
        assert 'class="for"' in html
        assert mistakes[-1]["text"] in re.sub("<[^>]*>", "", html)
    assert "each with the nearest training samples" in html
    assert "Pictures:" not in html
    text = card.read_text()
    assert "pipeline_tag: text-classification" in text
    assert "tokenizer = Tokenizer.from_file(" in text
    assert "normalisation is inside the network" not in text
    without = report(asked("report", f"run={run}", "examples=0", "worst=0"), path)[0].read_text()
    assert "<blockquote" not in without


@pytest.mark.slow
def test_the_code_of_the_model_card_uses_the_export(run, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from headstart.export.export import export

    path = find_checkpoint(str(run))
    monkeypatch.setattr("headstart.export.parity.SECONDS", 0.0)
    export(asked("export", f"run={run}", "format=onnx"), path)
    card = report(asked("report", f"run={run}"), path)[1].read_text()
    monkeypatch.chdir(run)
    capsys.readouterr()
    codes = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    for code, lines in zip(codes, (1, 2), strict=True):
        exec(code, {})
        assert len(capsys.readouterr().out.splitlines()) == lines


@pytest.fixture
def client(run):
    pytest.importorskip("fastapi", reason="serving needs the extra 'serve'")
    from fastapi.testclient import TestClient

    from headstart.inference.app import Model, build_app
    from headstart.inference.classifier import Classifier

    task, _ = checkpoint.load_task(find_checkpoint(str(run)))
    app = build_app(Model(Classifier(task), torch.device("cpu")), max_bytes=20_000, top_k=2, maps=True)
    return TestClient(app, base_url=HERE)


def test_a_text_is_answered_as_the_classifier_says(client, run):
    from headstart.inference.classifier import Classifier

    answer = client.post("/predict", content="A superb film", headers={"Content-Type": "text/plain; charset=UTF-8"})
    assert answer.status_code == 200
    task, _ = checkpoint.load_task(find_checkpoint(str(run)))
    with torch.no_grad():
        (expected,) = Classifier(task)(task.backbone.preprocess("A superb film")[None])
    found = {row["class"]: row["probability"] for row in answer.json()["classes"]}
    assert [found[name] for name in task.classes] == pytest.approx(expected.tolist(), abs=1e-5)
    assert "words" not in answer.json()


def test_words_come_back_in_order_and_unchanged(client):
    pytest.importorskip("captum")
    text = f"  {NASTY}\nfilms, " + "the film " * 20
    answer = client.post("/predict?map=true", content=text, headers={"Content-Type": "text/plain"}).json()
    assert "".join(piece["text"] for piece in answer["words"]) == text
    weights = [piece["weight"] for piece in answer["words"] if piece["weight"] is not None]
    assert max(map(abs, weights)) == 1
    assert [piece["read"] for piece in answer["words"]].count(False) == 1, "the end is longer than the network reads"


@pytest.mark.parametrize(("body", "kind", "code", "reason"), [
    (b"\xff\xfd\xff", "text/plain", 422, "this text cannot be read: not UTF-8 (byte 0)"),
    (b" \n", "text/plain", 422, "this text cannot be read: empty"),
    (b"", "text/plain", 400, "the request is empty"),
    (b"x" * 20_001, "text/plain", 413, "the text is larger than 0.02 MB"),
    (b"a", "text/plain; charset=latin-1", 415, "send only the text in UTF-8, as text/plain"),
    (b"a", "image/png", 415, "image/png is not a text"),
    (b"a", "text/html", 415, "text/html is not a text"),
    (b"a=b", "application/x-www-form-urlencoded", 415, "is not a text"),
])  # fmt: skip
def test_a_bad_request_has_a_reason_in_words(body, kind, code, reason, client):
    answer = client.post("/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == code
    assert reason in answer.json()["detail"]


def test_the_page_for_texts_has_the_same_guards(client):
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "{{" not in answer.text
    assert "innerHTML" not in answer.text
    assert "<textarea" in answer.text
    headers = {"Content-Type": "text/plain", "Origin": "http://evil.example"}
    assert client.post("/predict", content="a", headers=headers).status_code == 403
    assert client.get("/health").json()["input"]["name"] == "tokens"


def test_a_long_text_is_refused_though_a_picture_of_that_size_is_not(run):
    pytest.importorskip("fastapi")
    from headstart.inference.app import served_kind
    from headstart.inputs.images.preprocess import ImagePreprocess

    task, _ = checkpoint.load_task(find_checkpoint(str(run)))
    assert served_kind(task.backbone.preprocess).most_bytes == 10**6
    pictures = served_kind(ImagePreprocess(16, 16))
    assert pictures.most_bytes is None
    assert not pictures.accepts("text/plain")
    with pytest.raises(UsageError, match="serve is for pictures and texts, not for a sound of this model"):
        served_kind(Sounds())


class Sounds(Tokens):
    sample_name, hub_task = "sound", "audio-classification"
