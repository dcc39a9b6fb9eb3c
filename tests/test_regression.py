"""Numbers instead of classes, from the data to every file about a run."""

import csv
import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import tiny_text
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from sklearn.linear_model import RidgeCV

from headstart.callbacks import closed_form_head
from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.evaluation.evaluate import evaluate
from headstart.export.export import ExportFailed, export
from headstart.heads.ridge_regression import PENALTIES
from headstart.inference.predict import predict
from headstart.report.build import report
from headstart.runs.directory import Run, find_checkpoint
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.run import train
from headstart.training.settle import settle_numbers

NUMBERS = ("task=regression", "data.numbers=true", "data.num_samples=120")
PROBE = (*NUMBERS, "finetuning=probe", "trainer.max_epochs=1")

needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra onnx"
)


def rows(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def composed_for(entry_point, run, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(entry_point, [f"run={run}", *overrides])


def evaluated(run, *overrides):
    return evaluate(composed_for("evaluate", run, *overrides), find_checkpoint(str(run)))


def features_and_targets(data, backbone, split):
    positions = range(data.num_samples[split])
    with torch.no_grad():
        features = torch.cat([backbone(batch) for batch in data.inputs(split, positions)])
    return features.double().numpy(), data.targets(split, positions).double().numpy()


@pytest.fixture
def probe(quick, tmp_path):
    """A run with the closed-form head on two numbers."""
    train(quick(*PROBE))
    return tmp_path / "run"


def test_the_probe_predicts_as_ridge_regression_of_scikit_learn(quick):
    cfg = quick(*PROBE)
    train(cfg)
    task, _ = checkpoint.load_task(Run(Path(cfg.paths.run)).best)
    data = build_data(cfg)
    data.connect(task.backbone.preprocess, task.backbone.preprocess)
    features, targets = features_and_targets(data, task.backbone, "train")
    scale = np.square(features - features.mean(0)).sum()
    reference = RidgeCV(alphas=[scale * penalty for penalty in PENALTIES])
    reference.fit(features, (targets - targets.mean(0)) / targets.std(0))
    others, truth = features_and_targets(data, task.backbone, "test")
    expected = reference.predict(others) * targets.std(0) + targets.mean(0)
    with torch.no_grad():
        found = task.objective.probabilities(task.head(torch.from_numpy(others).float())).numpy()
    np.testing.assert_allclose(found, expected, atol=0.02 * targets.std())
    assert np.square(found - truth).mean() < 0.1 * truth.var()


def test_the_log_names_the_method_and_its_score(quick, caplog):
    with caplog.at_level(logging.INFO):
        train(quick(*PROBE))
    (line,) = [each for each in caplog.messages if each.startswith("closed-form head: ridge")]
    assert "ridge regression on 84 x" in line
    assert "R2 0.9" in line


def test_an_evaluation_says_what_training_said_and_writes_the_files_of_numbers(quick, tmp_path):
    trained = train(quick(*PROBE))
    metrics = evaluated(tmp_path / "run")
    assert metrics == pytest.approx({k: v for k, v in trained.metrics.items() if k.startswith("test/")}, abs=1e-5)
    folder = tmp_path / "run/evaluation_test"
    assert {path.name for path in folder.iterdir()} == {
        "predictions.csv", "errors.csv", "errors.png", "metrics.csv", "numbers.csv", "evaluation.json",
        "predicted_against_true.png", "residuals.png",
    }  # fmt: skip
    content = json.loads((folder / "evaluation.json").read_text())
    for found in content["metrics"].values():
        assert found["low"] <= found["value"] <= found["high"]
    assert [row["number"] for row in content["numbers"]] == ["number_0", "number_1"]
    assert np.mean([row["mae"] for row in content["numbers"]]) == pytest.approx(metrics["test/mae"], rel=1e-5)
    assert np.mean([row["r2"] for row in content["numbers"]]) == pytest.approx(metrics["test/r2"], rel=1e-5)
    table = rows(folder / "predictions.csv")
    assert list(table[0]) == ["path", *(f"{k}(number_{n})" for n in (0, 1) for k in ("true", "predicted"))]
    names = ("number_0", "number_1")
    errors = [abs(float(row[f"true({name})"]) - float(row[f"predicted({name})"])) for row in table for name in names]
    assert np.mean(errors) == pytest.approx(metrics["test/mae"], rel=1e-3)
    worst = rows(folder / "errors.csv")
    assert len(worst) == len(table)
    sizes = [float(row["error"]) for row in worst]
    assert sizes[0] == max(sizes) or worst[0]["number"] != worst[1]["number"]  # of different numbers: in deviations


@pytest.mark.parametrize("setting", ["calibrate", "label_errors"])
def test_an_evaluation_refuses_what_is_for_classes(probe, setting, monkeypatch):
    monkeypatch.setattr("headstart.evaluation.inspection.require_cleanlab", lambda: None)
    with pytest.raises(UsageError, match=f"{setting}=true is for classes, and this model predicts numbers"):
        evaluated(probe, f"{setting}=true")


def test_neighbours_features_and_explanations(probe):
    explain = ["explain=3"] if importlib.util.find_spec("captum") else []
    evaluated(probe, "neighbours=2", "embedding=true", *explain)
    folder = probe / "evaluation_test"
    found = rows(folder / "neighbours.csv")
    assert len(found[0]["class"].split("|")) == 2
    assert float(found[0]["class"].split("|")[0]) >= 0
    assert (folder / "embedding.png").is_file()
    assert not explain or (folder / "explanations.png").is_file()


def test_a_single_number_is_explained_by_what_raises_it(quick, tmp_path, monkeypatch):
    train(quick(*PROBE, "data.num_classes=1"))
    asked = []

    def explain(network, backbone, samples, classes):
        asked.extend(classes)
        return torch.zeros(len(samples), 16, 16)

    monkeypatch.setattr("headstart.evaluation.inspection.explanation_for", lambda *_: explain)
    monkeypatch.setattr("headstart.evaluation.inspection.require_captum", lambda: None)
    evaluated(tmp_path / "run", "explain=2")
    assert asked == [1, 1]  # 0 would be the negative of the only output


def test_predictions_are_in_units_and_have_a_column_per_number(probe, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for brightness in (40, 200):
        Image.new("RGB", (16, 16), (brightness,) * 3).save(pictures / f"{brightness:03d}.png")
    (pictures / "bad.png").write_text("no picture")
    for form in ("csv", "jsonl"):
        cfg = composed_for("predict", probe, f"input={pictures}", f"output={tmp_path / 'out'}.{form}")
        assert predict(cfg, find_checkpoint(str(probe)))
    table = rows(tmp_path / "out.csv")
    assert list(table[0]) == ["file", "number_0", "number_1", "error"]
    dark, bright, bad = table
    assert -20 < float(dark["number_0"]) < float(bright["number_0"]) < 120
    assert float(bright["number_0"]) > 50  # standardised numbers would be at most about 2
    assert bad["number_0"] == bad["number_1"] == ""
    assert bad["error"]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[0]["numbers"] == {name: float(dark[name]) for name in ("number_0", "number_1")}
    assert lines[2]["numbers"] == {}


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=needs_onnx), "torchscript", "safetensors"])
def test_an_export_gives_units(probe, form, monkeypatch, tmp_path):
    monkeypatch.setattr("headstart.export.parity.SECONDS", 0.0)
    about = export(composed_for("export", probe, f"format={form}"), find_checkpoint(str(probe)))
    assert about["numbers"] == ["number_0", "number_1"]
    assert "classes" not in about
    assert about["output"]["name"] == "numbers"
    assert about["parity"]["largest"] < 1e-4
    assert about["parity"]["r2"]["export"] == pytest.approx(about["parity"]["r2"]["checkpoint"], abs=1e-4)
    if form == "safetensors":
        assert about["to_be_done_after"][0].startswith("multiply the outputs by [2")
        return
    picture = torch.full((1, 3, 16, 16), 200, dtype=torch.uint8)
    if form == "onnx":
        session = importlib.import_module("onnxruntime").InferenceSession(str(probe / "export/best.onnx"))
        (numbers,) = session.run(["numbers"], {"pictures": picture.numpy()})
    else:
        numbers = torch.jit.load(str(probe / "export/best.pt"))(picture)
    assert numbers[0, 0] > 50


def test_an_export_that_differs_by_a_part_of_a_deviation_is_refused(probe, monkeypatch):
    monkeypatch.setattr("headstart.export.parity.SECONDS", 0.0)
    monkeypatch.setitem(importlib.import_module("headstart.export.export").LOAD, "torchscript", lambda *_: shifted)
    task, _ = checkpoint.load_task(find_checkpoint(str(probe)))

    def shifted(batch):
        with torch.no_grad():
            return task.objective.probabilities(task(batch)) + 0.05 * task.objective.std

    with pytest.raises(ExportFailed, match=r"numbers of file and checkpoint differ by up to 0\.05 standard deviations"):
        export(composed_for("export", probe, "format=torchscript", "resize=outside"), find_checkpoint(str(probe)))


def test_a_report_shows_numbers_and_no_classes(probe):
    evaluated(probe)
    page, card = (file.read_text() for file in report(composed_for("report", probe), find_checkpoint(str(probe))))
    for text in ("mean absolute error", "Worst errors", "Predicted against true", "from the lowest to the highest"):
        assert text in page
    assert "Most confused" not in page
    assert "<h3>Classes</h3>" not in page
    assert "trained to predict 2 numbers from a picture" in card
    assert "image-regression" in card
    assert "pipeline_tag" not in card
    assert "type: r_squared" in card
    assert "stratified by the first number" in card


def test_the_web_application_answers_with_numbers(probe):
    pytest.importorskip("fastapi", reason="serving needs the extra 'serve'")
    from fastapi.testclient import TestClient

    from headstart.inference.app import Model, build_app
    from headstart.inference.classifier import Classifier

    task, _ = checkpoint.load_task(find_checkpoint(str(probe)))
    app = build_app(Model(Classifier(task), torch.device("cpu")), 10**6, 5, False)
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    assert client.get("/health").json()["numbers"] == ["number_0", "number_1"]
    file = probe / "p.png"
    Image.new("RGB", (16, 16), (200,) * 3).save(file)
    answer = client.post("/predict", content=file.read_bytes(), headers={"Content-Type": "image/png"}).json()
    assert [each["number"] for each in answer["numbers"]] == ["number_0", "number_1"]
    assert answer["numbers"][0]["value"] > 50


@pytest.mark.parametrize(("loss", "mixing"), [("mse", "cutmix"), ("mae", "none"), ("huber", "mixup")])
def test_every_loss_learns_also_from_mixed_pictures(loss, mixing, quick):
    options = [f"task.objective.loss={loss}", f"mixing={mixing}", "trainer.max_epochs=3", "optimizer.lr=0.01"]
    result = train(quick(*NUMBERS, "data.num_classes=1", "test_time=flip", *options, "model=tiny_resnet"))
    assert result.cfg.monitor == "val/loss"
    assert result.metrics["val/r2"] > 0.3
    assert result.metrics["test/r2"] > 0.3


def test_the_default_recipe(composed, caplog, monkeypatch):
    for name in ("MOST_EPOCHS", "FEWEST_EPOCHS"):
        monkeypatch.setattr(f"headstart.training.auto.{name}", 3)
    cfg = composed(
        "experiment=auto", "task=regression", "data=fake", "data.num_samples=350", "data.image_size=16",
        "model.image_size=16", "trainer=cpu", "trainer.precision=32-true", "trainer.max_epochs=2",
    )  # fmt: skip
    caplog.set_level(logging.INFO, "headstart")
    result = train(cfg)
    assert "val r2" in caplog.text, "the line of an epoch has the score of the task"
    assert result.cfg.data.numbers  # set by the task
    assert result.cfg.mode == "min"
    assert result.kept.monitor == "val/loss"
    assert result.metrics["test/r2"] > 0.9
    choices = Run(Path(cfg.paths.run)).choices_file.read_text()
    assert "per class" not in choices
    assert "smallest class" not in choices


def test_pairs_of_numbers_are_refused(quick):
    with pytest.raises(UsageError, match="needs one class per sample, but the samples have numbers: use another"):
        train(quick(*NUMBERS, "finetuning=contrastive"))


def test_lp_ft_begins_with_the_ridge_regression(quick, monkeypatch):
    solved = []
    solve = closed_form_head.ClosedFormHead._solve
    monkeypatch.setattr(
        closed_form_head.ClosedFormHead, "_solve", lambda self, trainer, task: solved.append(solve(self, trainer, task))
    )
    train(quick(*NUMBERS, "finetuning=lp_ft", "trainer.max_epochs=2"))
    assert len(solved) == 1


def test_mean_and_deviation_are_those_of_the_training_samples_and_stay_in_the_checkpoint(quick, tmp_path):
    cfg = quick(*NUMBERS, "trainer.max_epochs=1")
    train(cfg)
    data = build_data(cfg)
    targets = data.targets("train", range(data.num_samples["train"]))
    task, _ = checkpoint.load_task(tmp_path / "run/checkpoints/best.ckpt")
    torch.testing.assert_close(task.objective.mean, targets.mean(0))
    torch.testing.assert_close(task.objective.std, targets.std(0, correction=0))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=regression", "data=digits"], r"the data \(Digits\) have classes, and task=regression needs numbers"),
        (["task=classification", "data=fake", "data.numbers=true"], "use task=regression, or leave it out"),
    ],
)
def test_tasks_and_data_that_do_not_fit_are_refused_before_the_data_are_read(overrides, message, composed):
    with pytest.raises(UsageError, match=message):
        settle_numbers(composed(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.sampler=balanced"], "data.sampler=balanced is for classes, and the data have numbers: use shuffle"),
        (["data.class_weights=sqrt"], "data.class_weights=sqrt is for classes, and the data have numbers: use none"),
        (["data.shots_per_class=3"], "the data have numbers instead of classes; give data.train_fraction"),
    ],
)
def test_settings_of_data_that_are_for_classes(overrides, message, quick):
    with pytest.raises(UsageError, match=message):
        build_data(quick(*NUMBERS, *overrides))


def test_tensorboard_shows_predicted_against_true(quick, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(quick(*PROBE, "logger=tensorboard", "callbacks.dashboard.pictures=2"))
    found = EventAccumulator(str(tmp_path / "run/tensorboard"), size_guidance={"images": 0})
    found.Reload()
    assert {"val/predicted_against_true", "val/worst_mistakes"} <= set(found.Tags()["images"])
    assert {"train/r2", "val/r2", "val/mae", "val/rmse"} <= set(found.Tags()["scalars"])


def test_the_same_epochs_train_a_network_in_any_unit(quick):
    """The loss is of standardised numbers: millimetres and kilometres give the same network."""

    def trained(factor):
        cfg = quick(*NUMBERS, "trainer.max_epochs=1", "test=false")
        data = build_data(cfg)
        data.samples.targets = [[factor * value for value in row] for row in data.samples.targets]
        torch.manual_seed(0)
        task, trainer = build_task(cfg, data), build_trainer(cfg)
        trainer.fit(task, data)
        return trainer.callback_metrics

    small, large = trained(1e-6), trained(1e6)
    assert small["val/loss"].item() == pytest.approx(large["val/loss"].item(), rel=1e-3)
    assert small["val/r2"].item() == pytest.approx(large["val/r2"].item(), abs=1e-3)
    assert small["val/mae"].item() == pytest.approx(large["val/mae"].item() * 1e-12, rel=1e-3)


@pytest.fixture
def texts(composed, tmp_path):
    """A run of a tiny encoder on texts in a table; the number is the share of good words, in per cent."""
    table, random = tmp_path / "films.csv", np.random.default_rng(0)
    words = [["superb"] * good + ["awful"] * (8 - good) + ["film"] for good in list(range(9)) * 10]
    rows = [(" ".join(random.permutation(each)), 12.5 * each.count("superb")) for each in words]
    table.write_text("text,stars\n" + "".join(f"{text},{stars}\n" for text, stars in rows))
    overrides = ["data=text_table", f"data.root={table}", "data.label_column=stars", "task=regression"]
    cfg = composed(
        *overrides, "data.numbers=true", "trainer=cpu", "trainer.precision=32-true", "model=transformers",
        f"model.name={tiny_text.write_model(tmp_path / 'model')}", "model.weights=null", "finetuning=full",
        "optimizer.lr=0.01", "trainer.max_epochs=12", "trainer.enable_progress_bar=false",
    )  # fmt: skip
    train(cfg)
    return tmp_path / "run"


def test_texts_have_numbers_too(texts, tmp_path, capsys):
    assert evaluated(texts, "neighbours=2")["test/r2"] > 0.5
    folder = texts / "evaluation_test"
    assert {"errors.html", "neighbours.html", "predicted_against_true.png"} <= {path.name for path in folder.iterdir()}
    assert "awful" in rows(folder / "errors.csv")[0]["text"] + rows(folder / "errors.csv")[-1]["text"]
    assert "stars: " in (folder / "errors.html").read_text()
    assert "worst errors, " in capsys.readouterr().err
    page, card = (file.read_text() for file in report(composed_for("report", texts), find_checkpoint(str(texts))))
    assert "Worst errors" in page
    assert "text-regression" in card
    assert 'about["numbers"]' in card
    lines = tmp_path / "new.txt"
    lines.write_text("superb superb superb\nawful awful awful\n")
    cfg = composed_for("predict", texts, f"input={lines}", f"output={tmp_path / 'out.csv'}")
    assert predict(cfg, find_checkpoint(str(texts)))
    good, bad = rows(tmp_path / "out.csv")
    assert float(good["stars"]) > 70 > 30 > float(bad["stars"])
    assert good["text"] == "superb superb superb"
