"""The page about a run, from runs as they come out of training."""

import csv
import json
import os
import re
import shutil
from html.parser import HTMLParser

import pytest
import yaml
from hydra import compose, initialize_config_dir
from photos import pictures
from PIL import Image

from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.evaluation import evaluate as evaluation
from headstart.report.build import report
from headstart.runs.directory import find_checkpoint
from headstart.training.run import train

NASTY = ['<b>bold & "quoted"', "a|b", "plain", os.fsdecode(b"no \xff text")]
UNSURE = ("data.num_classes=3", "data.num_samples=90", "trainer.max_epochs=1")


def reported(run, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        page, card = report(compose("report", [f"run={run}", *overrides]), find_checkpoint(str(run)))
    return page.read_text(encoding="utf-8"), card.read_text(encoding="utf-8")


@pytest.fixture
def photos(composed, tmp_path):
    """A run on a folder with odd class names, a broken file and a picture that is in two splits."""
    root = tmp_path / "photos"
    pictures(root / "train", NASTY, 8)
    pictures(root / "val", NASTY, 4, start=500)
    (root / "val/plain/again.png").write_bytes((root / "train/plain/0.png").read_bytes())
    (root / "train/plain/<i>.png").write_bytes(b"no picture")

    def run(*overrides):
        return train(composed(
            "data=image_folder", f"data.root={root}", "trainer=cpu", "trainer.max_epochs=1", "model.image_size=16",
            "trainer.enable_progress_bar=false", "data.test_fraction=0.3", *overrides,
        ))  # fmt: skip

    return run


class Page(HTMLParser):
    """Which elements a page has, and that they are closed as they are opened."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def test_the_page_holds_everything_and_escapes_it(photos, tmp_path):
    photos()
    text, card = reported(tmp_path / "run")
    page = Page(text)
    assert not page.open
    assert not page.all("b"), "a class name has become an element"
    assert "&lt;b&gt;bold &amp; &#34;quoted&#34;" in text
    assert not page.all("script")
    assert all(attrs["src"].startswith("data:image/") and attrs["alt"] for attrs in page.all("img"))
    assert all(attrs["href"].startswith(("#", "data:")) for attrs in page.all("a") + page.all("link"))
    assert {attrs.get("scope") for attrs in page.all("th")} == {"row", "col"}
    assert "1 samples with identical content are in two splits" in text
    assert "train/plain/&lt;i&gt;.png: not a picture" in text
    assert "all 30 x 20 pixels" in text
    assert "0.3 of train, stratified by class, seed 0" in text
    assert r"a\|b" in card
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "other"
    kept = json.loads((tmp_path / "run/metrics.json").read_text())
    on_test = header["model-index"][0]["results"][0]
    assert on_test["dataset"]["split"] == "test"
    assert on_test["metrics"][0] == {
        "type": "accuracy", "name": "test/acc", "value": pytest.approx(kept["test/acc"], abs=1e-6),
    }  # fmt: skip


def test_test_is_told_of_but_never_touched(quick, tmp_path, monkeypatch):
    train(quick(*UNSURE))
    run, asked = tmp_path / "run", []
    evaluate = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", lambda cfg, path: asked.append(cfg.split) or evaluate(cfg, path))
    text, _ = reported(run)
    kept = json.loads((run / "metrics.json").read_text())
    assert f"{kept['test/acc']:.4f}" in text
    assert "without intervals" in text
    assert not (run / "evaluation_test").exists()
    reported(run)
    assert asked == ["val"], "an evaluation of val that is there is taken as it is"
    low = json.loads((run / "evaluation_val/evaluation.json").read_text())["metrics"]["loss"]["low"]
    assert f"{low:.4f} to" in text


@pytest.mark.parametrize("fraction", [0, 0.3])
def test_nothing_is_said_to_be_chosen_on_val_without_val(fraction, quick, tmp_path):
    train(quick(*UNSURE, f"data.val_fraction={fraction}"))
    for text in reported(tmp_path / "run"):
        assert ("was chosen on val" in text) == bool(fraction)
        assert ("nothing was chosen by a score" in text) == (not fraction)
    assert ("calibrate=true" in text) == bool(fraction)


def test_the_end_of_training_writes_it_with_the_test_it_made(quick, tmp_path, monkeypatch):
    asked, evaluate = [], evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", lambda cfg, path: asked.append(cfg.split) or evaluate(cfg, path))
    result = train(quick(*UNSURE, "report=true"))
    run = tmp_path / "run"
    assert asked == ["val"], "the test split is used once"
    content = json.loads((run / "evaluation_test/evaluation.json").read_text())
    for name, interval in content["metrics"].items():
        assert interval["value"] == pytest.approx(result.metrics[f"test/{name}"])
    with (run / "evaluation_test/predictions.csv").open() as stream:
        right = [int(row["right"]) for row in csv.DictReader(stream)]
    assert sum(right) / len(right) == pytest.approx(result.metrics["test/acc"])
    assert "without intervals" not in (run / "report.html").read_text()


def test_data_that_are_gone_are_told_as_gone(photos, tmp_path):
    photos()
    (tmp_path / "photos").rename(tmp_path / "moved")
    text, card = reported(tmp_path / "run")
    assert "could not be read when this page was made" in text
    assert "no such folder" in text
    counted = re.search(r'<tr><th scope="row">train</th><td>(\d+)</td>', text).group(1)
    rows = (tmp_path / "run/split.csv").read_text(errors="replace").split("\n")
    assert int(counted) == sum(row.startswith("train,") for row in rows)
    assert "| train |" in card


def test_no_picture_of_the_data_where_none_is_wanted(photos, tmp_path):
    photos()
    text, _ = reported(tmp_path / "run", "examples=0", "worst=0", "license=mit", "title='A | <title>'")
    assert "<img" not in text
    assert "<title>A | &lt;title&gt;</title>" in text
    assert "license: mit" in (tmp_path / "run/MODEL_CARD.md").read_text()


def test_several_labels_a_sample(quick, tmp_path):
    train(quick("task=multilabel", "data.multi_label=true", "data.num_classes=3", "trainer.max_epochs=1"))
    text, card = reported(tmp_path / "run")
    assert "all labels right" in text
    assert "labels a picture has" in card


def test_stages_are_told_as_they_were(quick, tmp_path):
    train(quick("finetuning=unfreeze_at", "finetuning.epoch=1", "trainer.max_epochs=2"))
    text, _ = reported(tmp_path / "run")
    stages = text.split("<h3>Stages</h3>")[1].split("</table>")[0]
    assert re.findall(r'<td class="left">(.*?)</td>', stages) == [
        "from the start", "the head", "head 0.001",
        "after epoch 1", "the whole backbone and the head", "head 0.001, backbone 0.0001",
    ]  # fmt: skip


def test_a_run_that_has_not_ended_is_refused(quick, tmp_path):
    train(quick("trainer.max_epochs=1"))
    (tmp_path / "run/metrics.json").unlink()
    with pytest.raises(UsageError, match=r"no metrics.json, so the run has not ended"):
        reported(tmp_path / "run")
    with pytest.raises(UsageError, match="a report needs a whole run; give its directory"):
        reported(tmp_path / "run/checkpoints/last.ckpt")
    shutil.copy(tmp_path / "run/checkpoints/best.ckpt", tmp_path)
    with pytest.raises(UsageError, match="a report needs a whole run; give its directory"):
        reported(tmp_path / "best.ckpt")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.json", b'{"a": {"b": 1}}'),
        ("split.csv", b"any\n1\n"),
        ("auto.txt", b"\xff"),
        ("evaluation_val/evaluation.json", b"{}"),
        ("evaluation_val/confusion.csv", b"true,a\na,x\n"),
    ],
)
def test_a_damaged_file_of_the_run_is_told_as_such(file, content, trained):
    run = trained()
    evaluation.evaluate(evaluation.defaults(run / "checkpoints/best.ckpt", "val"), run / "checkpoints/best.ckpt")
    (run / file).write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        reported(run)


@pytest.mark.slow
def test_the_card_tells_of_a_calibration_and_its_code_runs(quick, tmp_path, monkeypatch, capsys):
    train(quick("data.num_classes=3", "trainer.max_epochs=1", "data.val_fraction=0.4"))
    run = tmp_path / "run"
    _, card = reported(run)
    assert "The probabilities are as training left them" in card
    tables = re.findall(r"^### (.*)\n\n\|", card, re.M)
    assert tables == ["On test", "On val: 32 samples", "Model", "Cost", "Stages"], "each table has a name of its own"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        asked = compose("evaluate", [f"run={run}", "split=val", "calibrate=true"])
    evaluation.evaluate(asked, find_checkpoint(str(run)))
    shutil.rmtree(run / "evaluation_val")  # as if only test had been evaluated with it
    _, card = reported(run)
    errors = json.loads((run / "evaluation_val/evaluation.json").read_text())["ece"]
    told = f"on val: {errors['before temperature']:.4f} before, {errors['after']:.4f} with it"
    assert f"Expected calibration error {told}" in card
    Image.new("RGB", (33, 21), "red").save(run / "a.jpg")
    monkeypatch.chdir(run)
    answer = _answer(re.search(r"with Headstart:\n\n```python\n(.*?)```", card, re.DOTALL).group(1), capsys)
    probabilities = {each["class"]: each["probability"] for each in answer["predictions"]}
    assert sorted(probabilities) == ["class_0", "class_1", "class_2"]
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_the_code_of_the_card_uses_the_export(trained, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    from headstart.export.export import export

    run = trained()
    monkeypatch.setattr("headstart.export.parity.SECONDS", 0.0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("export", [f"run={run}", "format=onnx", "pictures=2"])
    export(cfg, find_checkpoint(str(run)))
    _, card = reported(run)
    Image.new("RGB", (33, 21), "red").save(run / "a.jpg")
    monkeypatch.chdir(run)
    ours, theirs = (_answer(code, capsys) for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    ours = {each["class"]: pytest.approx(each["probability"], abs=0.02) for each in ours["predictions"]}
    assert theirs == ours


def _answer(code, capsys):
    capsys.readouterr()
    exec(code, {})
    return eval(capsys.readouterr().out)
