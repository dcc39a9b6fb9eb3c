"""Evaluations of whole runs: what they say, write and refuse."""

import csv
import json
import re
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from headstart.backbones.tiny_resnet import TinyResNet
from headstart.caching.features import features_of
from headstart.cli.conf_files import CONF
from headstart.cli.schemas import OtherData
from headstart.errors import UsageError
from headstart.evaluation import inspection
from headstart.evaluation.evaluate import evaluate, sample_losses
from headstart.export.metadata import _calibration
from headstart.export.parity_samples import parity_samples
from headstart.inference.classifier import Classifier
from headstart.inputs.images.mirror import with_mirror_image
from headstart.runs.directory import Run, find_checkpoint
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task
from headstart.training.run import train

TABLES = {"predictions.csv", "mistakes.csv", "metrics.csv", "classes.csv", "evaluation.json"}
PICTURES = {"confusion.png", "reliability.png", "roc.png", "precision_recall.png"}
OF_CLASSES = {"confusion.csv", "confused.csv"}
# noise as strong as the colours, so that there are mistakes
UNSURE = ("data.num_classes=3", "optimizer.lr=1e-4", "trainer.max_epochs=1")


def evaluated(run, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [f"run={run}", *overrides])
    return evaluate(cfg, find_checkpoint(cfg.run, cfg.checkpoint))


def files(folder):
    return {path.name for path in folder.iterdir()}


def rows(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_metric_that_an_objective_adds_has_an_interval(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_TRUST", "kappa")
    trained = train(quick("trainer.max_epochs=1", "task.objective._target_=kappa.WithKappa", *UNSURE))
    metrics = evaluated(tmp_path / "run")
    assert metrics["test/kappa"] == pytest.approx(trained.metrics["test/kappa"], abs=1e-6)
    found = {row["metric"]: row for row in rows(tmp_path / "run/evaluation_test/metrics.csv")}
    assert float(found["kappa"]["low"]) <= metrics["test/kappa"] <= float(found["kappa"]["high"])
    assert float(found["kappa"]["low"]) < float(found["kappa"]["high"])


@pytest.mark.parametrize(
    ("overrides", "metric", "kept"),
    [
        (["data.num_classes=3"], "ece", OF_CLASSES),
        (["task=binary"], "ece", OF_CLASSES),
        (["task=multilabel", "data.multi_label=true", "data.num_classes=3"], "acc_exact", set()),
        (["data.class_weights=sqrt", "task.objective.label_smoothing=0.1", "data.num_classes=4"], "ece", OF_CLASSES),
    ],
    ids=["softmax", "binary", "labels", "weights"],
)
def test_an_evaluation_says_what_training_said_and_how_sure_it_is(overrides, metric, kept, quick, tmp_path):
    trained = train(quick("trainer.max_epochs=1", "optimizer.lr=1e-4", *overrides))
    metrics = evaluated(tmp_path / "run")
    assert metrics == pytest.approx({k: v for k, v in trained.metrics.items() if k.startswith("test/")}, abs=1e-6)
    folder = tmp_path / "run/evaluation_test"
    assert files(folder) - {"mistakes.png"} == TABLES | PICTURES | kept
    content = json.loads((folder / "evaluation.json").read_text())
    assert metric in content["metrics"]
    for name, found in content["metrics"].items():
        assert found["value"] == pytest.approx(metrics[f"test/{name}"])
        if name != "ece":  # drawing samples makes bins uneven: its draws lie higher
            assert found["low"] - 1e-6 <= found["value"] <= found["high"] + 1e-6, name
    loss, written = metrics["test/loss"], rows(folder / "predictions.csv")
    assert len(written) == content["samples"] == 12
    right = sum(row["right"] == "1" for row in written) / 12
    assert right == pytest.approx(metrics["test/acc_exact" if metric == "acc_exact" else "test/acc"])
    assert content["metrics"]["loss"]["low"] < loss < content["metrics"]["loss"]["high"]


def test_the_loss_of_each_sample_adds_up_to_the_loss(quick, tmp_path):
    """The interval of the loss is of the very loss that is printed: weights, smoothing and focus included."""
    for overrides in (["task.objective.focal_gamma=2", "data.class_weights=balanced"], ["task=binary"]):
        task = build_task(cfg := quick(*overrides), build_data(cfg))
        logits = torch.randn(20, task.objective.num_outputs)
        targets = torch.arange(20) % 2
        losses, weights = sample_losses(task.objective, logits, targets)
        assert (losses @ weights / weights.sum()).item() == pytest.approx(task.objective.loss(logits, targets).item())


def test_everything_that_can_be_asked(quick, tmp_path):
    pytest.importorskip("captum")
    pytest.importorskip("cleanlab")
    train(quick(*UNSURE))
    asked = "explain=2", "neighbours=true", "embedding=true", "label_errors=true", "worst=3"
    evaluated(tmp_path / "run", "split=val", *asked)
    folder = tmp_path / "run/evaluation_val"
    assert files(folder) >= {"mistakes.png", "explanations.png", "neighbours.png", "embedding.png"}
    mistakes = rows(folder / "mistakes.csv")
    assert mistakes, "without a mistake this test shows nothing"
    assert len(rows(folder / "embedding.csv")) == 12
    (told,) = (folder / "tensorboard").rglob("metadata.tsv")
    assert told.read_text().splitlines()[0] == "path\ttrue\tpredicted"
    assert (
        len(told.read_text().splitlines()) == 1 + 12 == 1 + len(told.with_name("tensors.tsv").read_text().splitlines())
    )
    assert told.with_name("sprite.png").is_file()
    assert "metadata.tsv" in (folder / "tensorboard/projector_config.pbtxt").read_text()
    neighbours = rows(folder / "neighbours.csv")
    names = {row["name"] for row in rows(tmp_path / "run/split.csv") if row["split"] == "train"}
    assert {row["neighbour"] for row in neighbours} <= names
    assert [row["rank"] for row in neighbours[:5]] == list("12345")
    assert {row["path"] for row in rows(folder / "label_errors.csv")} <= names
    # a plain evaluation afterwards leaves no picture of another
    evaluated(tmp_path / "run", "split=val", "worst=0")
    assert files(folder) == TABLES | PICTURES | OF_CLASSES


def test_explaining_shows_its_progress(quick, tmp_path, monkeypatch, caplog):
    pytest.importorskip("captum")
    train(quick(*UNSURE))
    steps = []

    @contextmanager
    def recorded(title, total, unit):
        yield SimpleNamespace(update=lambda number: steps.append((title, total, unit, number)))

    monkeypatch.setattr("headstart.evaluation.inspection.progress_bar", recorded)
    caplog.set_level("INFO", "headstart")
    evaluated(tmp_path / "run", "split=val", "explain=6")
    total = sum(number for *_, number in steps)
    assert len(steps) > 1, "a bar that only jumps to its end shows nothing"
    assert {(title, most, unit) for title, most, unit, _ in steps} == {("explaining", total, "pictures")}
    assert f"explaining the worst {total} pictures" in caplog.text


def test_several_labels_can_be_asked_about_too(quick, tmp_path):
    pytest.importorskip("captum")
    train(quick("task=multilabel", "data.multi_label=true", *UNSURE))
    evaluated(tmp_path / "run", "explain=true", "neighbours=2", "embedding=true")
    assert files(tmp_path / "run/evaluation_test") >= {"explanations.png", "neighbours.png", "embedding.png"}
    with pytest.raises(UsageError, match="label_errors=true needs one class per sample"):
        evaluated(tmp_path / "run", "label_errors=true")


def test_thresholds_of_labels_are_chosen_on_val_kept_and_used(quick, tmp_path, caplog):
    caplog.set_level("INFO")
    words = ("data.num_samples=300", "data.num_classes=3", "data.val_fraction=0.4", "finetuning=probe")
    result = train(quick("task=multilabel", "data.multi_label=true", *words))
    assert "thresholds of the labels, with the best F1 on val: class_0 0." in caplog.text
    path = tmp_path / "run/checkpoints/best.ckpt"
    task, _ = checkpoint.load_task(path)
    thresholds = task.objective.thresholds
    assert len(thresholds) == 3
    assert thresholds != [0.5] * 3
    again = evaluated(tmp_path / "run")
    assert again["test/f1_macro"] == pytest.approx(result.metrics["test/f1_macro"], abs=1e-6)
    folder = tmp_path / "run/evaluation_test"
    scores = [float(row["f1"] or "nan") for row in rows(folder / "classes.csv")]
    assert sum(scores) / 3 == pytest.approx(again["test/f1_macro"], abs=1e-3)
    assert [float(row["threshold"]) for row in rows(folder / "classes.csv")] == pytest.approx(thresholds, abs=1e-4)
    for row in rows(folder / "predictions.csv"):
        above = [f"class_{c}" for c in range(3) if float(row[f"p(class_{c})"]) > thresholds[c]]
        assert row["predicted"] == "|".join(above)
    evaluated(tmp_path / "run", "calibrate=true")
    calibrated = checkpoint.load_task(path)[0].objective
    assert calibrated.temperature != 1
    assert evaluated(tmp_path / "run")["test/f1_macro"] == pytest.approx(again["test/f1_macro"], abs=1e-6)
    # weights that are trained further have no thresholds until that training has ended
    assert build_task(quick(), build_data(quick()), None).objective.thresholds is None


@pytest.mark.parametrize("words", [["test=false"], ["data.test_fraction=0"]])
def test_the_choice_of_thresholds_is_no_test(words, quick, tmp_path):
    """It runs Lightning's test on val, while the report waits for the logits of the test."""
    several = ("task=multilabel", "data.multi_label=true", "data.num_classes=3", "finetuning=probe")
    train(quick(*several, "report=true", "trainer.limit_test_batches=1", *words))
    assert (tmp_path / "run/report.html").is_file()
    assert not (tmp_path / "run/evaluation_test").exists()


def test_features_are_found_where_training_left_them(quick, tmp_path, caplog):
    caplog.set_level("DEBUG", "headstart")
    train(quick(*UNSURE, "finetuning=probe"))
    data, (task, trained) = build_data(quick(*UNSURE)), checkpoint.load_task(tmp_path / "run/checkpoints/best.ckpt")
    data.connect(task.backbone.preprocess, task.backbone.preprocess)
    trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    cache = instantiate(trained.cache.activations)
    found = features_of(task.backbone, data, "train", trainer, cache)
    assert "features of train: 0 samples computed, 56 found" in caplog.text
    anew = features_of(task.backbone, data, "train", trainer, None)
    plain = torch.stack([task.backbone.preprocess(data.samples.load(i)) for i in data.splits["train"]])
    with torch.no_grad():
        expected = task.backbone(plain)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(anew, expected, atol=1e-4)


def test_labels_are_judged_by_the_backbone_as_it_began(quick, tmp_path, monkeypatch):
    train(quick(*UNSURE))
    path = tmp_path / "run/checkpoints/best.ckpt"
    task, trained = checkpoint.load_task(path)
    began = inspection.starting_backbone(trained, task)
    assert not torch.equal(began.stem[0].weight, task.backbone.stem[0].weight)
    assert torch.equal(began.stem[0].weight, TinyResNet().stem[0].weight)
    trained.finetuning._target_ = "headstart.finetuning.probe.Probe"
    assert inspection.starting_backbone(trained, task) is task.backbone


def test_a_temperature_is_kept_with_the_model(quick, tmp_path, caplog):
    before = train(quick(*UNSURE, "data.num_samples=300")).metrics
    path = tmp_path / "run/checkpoints/best.ckpt"
    (tmp_path / "run/export").mkdir()
    for name in ("best_int8.onnx", "best.onnx.json", "last.onnx"):
        (tmp_path / "run/export" / name).touch()
    weights = checkpoint.read(path)["state_dict"]
    after = evaluated(tmp_path / "run", "calibrate=true")
    assert after["test/acc"] == pytest.approx(before["test/acc"])
    assert after["test/loss"] == pytest.approx(before["test/loss"], abs=1e-6)
    assert after["test/ece"] != pytest.approx(before["test/ece"], abs=1e-4)
    task, _ = checkpoint.load_task(path)
    assert task.objective.temperature != 1
    assert all(torch.equal(value, weights[key]) for key, value in checkpoint.read(path)["state_dict"].items())
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    expected = (logits / task.objective.temperature).softmax(dim=1)
    assert torch.equal(task.objective.probabilities(logits), expected)
    content = json.loads((tmp_path / "run/evaluation_test/evaluation.json").read_text())
    assert content["temperature"] == task.objective.temperature
    assert content["ece"]["before temperature"] == pytest.approx(before["test/ece"], abs=1e-6)
    assert content["ece"]["after"] == pytest.approx(after["test/ece"], abs=1e-6)
    calibration = _calibration(Classifier(task), path)
    assert calibration["temperature_fitted_on"] == "val, after training"
    assert list(calibration["expected_calibration_error"]) == ["test"], "val was not evaluated since"
    known = {"before": before["test/ece"], "after": after["test/ece"]}
    assert calibration["expected_calibration_error"]["test"] == pytest.approx(known, abs=1e-6)
    assert re.findall(r"export again: (.*)", caplog.text) == [str(tmp_path / "run/export/best_int8.onnx")]
    written = json.loads((tmp_path / "run/metrics.json").read_text())
    assert written["test/ece"] == pytest.approx(after["test/ece"])
    assert written["val/ece"] == pytest.approx(checkpoint.read(path)["metrics"]["val/ece"])
    assert written["val/ece"] != pytest.approx(before["val/ece"], abs=1e-4)
    # fitted anew it is the same, and evaluated again it is used
    assert evaluated(tmp_path / "run", "calibrate=true") == pytest.approx(after)
    assert evaluated(tmp_path / "run") == pytest.approx(after)


def test_training_that_goes_on_forgets_the_temperature(quick, tmp_path):
    cfg = quick(*UNSURE, "data.num_samples=300")
    train(cfg)
    path = tmp_path / "run/checkpoints/best.ckpt"
    checkpoint.keep_temperature(path, 2.0)
    assert checkpoint.load_task(path)[0].objective.temperature == 2.0
    task = build_task(cfg, build_data(cfg), path)
    assert task.objective.temperature == 1.0
    assert task.hparams.temperature == 1.0


def test_without_a_mistake_there_is_no_temperature(quick, tmp_path, caplog):
    assert train(quick("trainer.max_epochs=6", "optimizer.lr=1e-2")).metrics["val/acc"] == 1
    evaluated(tmp_path / "run", "calibrate=true")
    assert checkpoint.load_task(tmp_path / "run/checkpoints/best.ckpt")[0].objective.temperature == 1.0
    assert "no temperature fits val" in caplog.text


def pictures(root, classes, number, seed=0):
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(number):
            colours = torch.randint(
                0, 255, (16, 16, 3), generator=torch.Generator().manual_seed(99 * place + i + 10_000 * seed)
            )
            Image.fromarray(colours.to(torch.uint8).numpy()).save(root / name / f"{i}.png")


def test_other_pictures_absent_classes_and_a_single_one(composed, tmp_path, caplog):
    caplog.set_level("INFO")
    pictures(tmp_path / "mine", ["a", "b", "c"], 10)
    train(composed(
        "data=image_folder", f"data.root={tmp_path / 'mine'}", "trainer=cpu", "trainer.max_epochs=1",
        "model.image_size=16", "trainer.enable_progress_bar=false", "data.val_fraction=0.3", "data.test_fraction=0.3",
    ))  # fmt: skip
    evaluated(tmp_path / "run")
    paths = {row["path"] for row in rows(tmp_path / "run/evaluation_test/predictions.csv")}
    assert paths == {row["name"] for row in rows(tmp_path / "run/split.csv") if row["split"] == "test"}
    pictures(tmp_path / "two", ["c", "a"], 5)
    metrics = evaluated(tmp_path / "run", f"data.root={tmp_path / 'two'}")
    folder = tmp_path / "run/evaluation_test_on_two"
    assert {row["path"].split("/")[0] for row in rows(folder / "predictions.csv")} == {"a", "c"}
    content = json.loads((folder / "evaluation.json").read_text())
    assert [row["support"] for row in content["classes"]] == [5, 0, 5]
    area = content["metrics"]["auroc_macro"]
    assert area["value"] == pytest.approx(metrics["test/auroc_macro"])
    assert area["low"] <= area["value"] <= area["high"]
    assert json.loads((tmp_path / "run/metrics_test.json").read_text()) != metrics
    pictures(tmp_path / "one", ["b"], 1)
    metrics = evaluated(tmp_path / "run", f"data.root={tmp_path / 'one'}", "embedding=true")
    content = json.loads((tmp_path / "run/evaluation_test_on_one/evaluation.json").read_text())
    assert content["metrics"]["acc"]["low"] == content["metrics"]["acc"]["high"] == metrics["test/acc"]
    assert content["metrics"]["auroc_macro"]["low"] is None
    elsewhere = tmp_path / "not UTF-8: \udce9/one"
    pictures(elsewhere, ["a"], 4)
    for _ in range(2):
        evaluated(tmp_path / "run", f"data.root='{elsewhere}'")
    files = [tmp_path / f"run/evaluation_test_on_one{number}/evaluation.json" for number in ("", "_2")]
    assert [json.loads(file.read_text(errors="surrogateescape"))["samples"] for file in files] == [1, 4]
    assert not (tmp_path / "run/evaluation_test_on_one_3").exists()


def test_another_table_has_its_own_pictures_and_columns(composed, tmp_path):
    for place, name in enumerate(("own", "other")):
        pictures(tmp_path / name, ["a", "b"], 12, seed=place)
        lines = [f"{c}/{i}.png,{c},p{i},{('train', 'val', 'test')[i % 3]}" for c in "ab" for i in range(12)]
        columns = 4 if name == "own" else 2
        table = [",".join(line.split(",")[:columns]) for line in ("file,label,patient,fold", *lines)]
        (tmp_path / f"{name}.csv").write_text("\n".join(table))
    train(composed(
        "data=table", f"data.root={tmp_path / 'own.csv'}", f"data.images={tmp_path / 'own'}", "data.group_by=patient",
        "data.split_column=fold", "trainer=cpu", "trainer.max_epochs=1", "model.image_size=16",
        "trainer.enable_progress_bar=false", "finetuning=probe",
    ))  # fmt: skip
    evaluated(tmp_path / "run", f"data.root={tmp_path / 'other.csv'}", f"data.images={tmp_path / 'other'}")
    found = rows(tmp_path / "run/evaluation_test_on_other.csv/predictions.csv")
    assert len(found) == 24, "all samples of the other table, none of the run"
    with pytest.raises(UsageError, match=r"give data\.images="):
        evaluated(tmp_path / "run", f"data.root={tmp_path / 'other.csv'}")


def test_pictures_that_were_moved_stay_in_their_splits(composed, tmp_path, caplog):
    """Or the model would be tested on what it has learned from."""
    pictures(tmp_path / "mine", ["a", "b"], 10)
    train(composed(
        "data=image_folder", f"data.root={tmp_path / 'mine'}", "trainer=cpu", "trainer.max_epochs=1",
        "model.image_size=16", "trainer.enable_progress_bar=false", "data.val_fraction=0.3", "data.test_fraction=0.3",
    ))  # fmt: skip
    of = {row["name"]: row["split"] for row in rows(tmp_path / "run/split.csv")}
    moved = (tmp_path / "mine").rename(tmp_path / "moved")
    for split in ("test", "val"):
        evaluated(tmp_path / "run", f"data.root={moved}", f"split={split}")
        paths = {row["path"] for row in rows(tmp_path / f"run/evaluation_{split}_on_moved/predictions.csv")}
        assert paths == {name for name, where in of.items() if where == split}
    task, trained = checkpoint.load_task(path := tmp_path / "run/checkpoints/best.ckpt")
    pieces = parity_samples(trained, OmegaConf.structured(OtherData(str(moved))), path, task, count=100)
    assert len(pieces) == sum(where == "val" for where in of.values())
    assert "trained on" not in caplog.text
    (moved / next(name for name, where in of.items() if where == "test")).unlink()
    learned = next(name for name, where in of.items() if where == "train")
    (moved / learned).rename(moved / "a/another name.png")
    evaluated(tmp_path / "run", f"data.root={moved}")
    trained = sum(where == "train" for where in of.values())
    assert f"the model was trained on {trained} of these 19 samples, the first is " in caplog.text


def test_other_pictures_with_the_names_of_the_run_are_all_tested(composed, tmp_path, caplog):
    pictures(tmp_path / "mine", ["a", "b"], 10)
    words = ("data=image_folder", "trainer=cpu", "trainer.max_epochs=1", "model.image_size=16")
    train(composed(*words, f"data.root={tmp_path / 'mine'}", "trainer.enable_progress_bar=false"))
    pictures(tmp_path / "others", ["a", "b"], 10, seed=1)
    evaluated(tmp_path / "run", f"data.root={tmp_path / 'others'}")
    assert len(rows(tmp_path / "run/evaluation_test_on_others/predictions.csv")) == 20
    assert "keep their splits" not in caplog.text
    assert "trained on" not in caplog.text


def test_a_run_whose_pictures_are_gone_is_still_evaluated_and_resumed(composed, tmp_path, caplog):
    pictures(tmp_path / "mine", ["a", "b"], 10)
    words = (
        "data=image_folder", f"data.root={tmp_path / 'mine'}", "trainer=cpu", "scheduler=none", "finetuning=full",
        "model.image_size=16", "trainer.enable_progress_bar=false", "data.val_fraction=0.2", "data.test_fraction=0.3",
    )  # fmt: skip
    train(composed(*words, "trainer.max_epochs=1"))
    of = {row["name"]: row["split"] for row in rows(tmp_path / "run/split.csv")}
    for split in ("train", "test"):
        (tmp_path / "mine" / next(name for name, where in of.items() if where == split)).unlink()
    evaluated(tmp_path / "run")
    paths = {row["path"] for row in rows(tmp_path / "run/evaluation_test/predictions.csv")}
    assert len(paths) == sum(where == "test" for where in of.values()) - 1
    assert all(of[path] == "test" for path in paths)
    assert "2 of 20 samples of" in caplog.text
    result = train(composed(*words, "trainer.max_epochs=2", f"resume={tmp_path / 'run'}"))
    assert result.num_train == sum(where == "train" for where in of.values()) - 1


def test_the_mean_with_the_mirror_image_is_what_is_judged(quick, tmp_path):
    train(quick(*UNSURE))
    plain = evaluated(tmp_path / "run", "embedding=true")
    metrics = evaluated(tmp_path / "run", "test_time=flip", "embedding=true")
    assert metrics["test/loss"] != pytest.approx(plain["test/loss"], abs=1e-6)
    folder = tmp_path / "run/evaluation_test_with_mirror_image"
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["metrics"]["loss"]["low"] < metrics["test/loss"] < content["metrics"]["loss"]["high"]
    task, _ = checkpoint.load_task(tmp_path / "run/checkpoints/best.ckpt")
    data = build_data(quick(*UNSURE))
    data.connect(task.backbone.preprocess, task.backbone.preprocess)
    task.test_time = with_mirror_image
    with torch.no_grad():
        said = torch.cat([task.predict_step(batch, 0) for batch in data.loader("test")])
    written = [[float(row[f"p(class_{c})"]) for c in range(3)] for row in rows(folder / "predictions.csv")]
    assert torch.allclose(torch.tensor(written), said, atol=1e-5)
    assert len(rows(folder / "embedding.csv")) == len(said)


def test_an_evaluation_belongs_to_the_weights_that_were_evaluated(quick, tmp_path):
    """Validation while training does not average with the mirror image, so metrics alone could not tell."""
    train(quick(*UNSURE, "test_time=flip", "test=false"))
    run = Run(tmp_path / "run")
    metrics = evaluated(run.folder, "split=val")
    assert abs(metrics["val/loss"] - run.metrics["val/loss"]) > 1e-6
    run.metrics["val/loss"] = 2 * metrics["val/loss"]  # as if the two differed by more than precision explains
    assert run.evaluation("val")["metrics"]["loss"]["value"] == pytest.approx(metrics["val/loss"])
    checkpoint.keep_temperature(run.best, 2.0)
    assert run.evaluation("val"), "a temperature is no new weights"
    content = checkpoint.read(run.best)
    content["state_dict"]["head.0.bias"] += 1e-3
    torch.save(content, run.best)
    assert run.evaluation("val") is None
    assert run.predictions("val") is None


def test_a_run_from_before_a_setting_existed_can_be_evaluated(quick, tmp_path):
    metrics = train(quick("trainer.max_epochs=1")).metrics
    path = tmp_path / "run/checkpoints/best.ckpt"
    content = checkpoint.read(path)
    for key in ("lr_find", "auto", "compare_scratch"):
        del content["hyper_parameters"]["config"][key]
    del content["hyper_parameters"]["temperature"]
    torch.save(content, path)
    assert evaluated(tmp_path / "run")["test/loss"] == pytest.approx(metrics["test/loss"], abs=1e-6)


def test_another_checkpoint_has_a_folder_of_its_own(quick, tmp_path):
    train(quick("trainer.max_epochs=1"))
    evaluated(tmp_path / "run", "checkpoint=last")
    assert (tmp_path / "run/evaluation_test_last/evaluation.json").is_file()
    assert (tmp_path / "run/metrics_test_last.json").is_file()
    alone = tmp_path / "elsewhere/model.ckpt"
    alone.parent.mkdir()
    alone.write_bytes((tmp_path / "run/checkpoints/best.ckpt").read_bytes())
    evaluated(alone)
    assert (tmp_path / "elsewhere/evaluation_test_model/evaluation.json").is_file()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["calibrate=true", "data.root=x"], "calibrate=true needs the data of the run: leave data.root out"),
        (["neighbours=3", "data.root=x"], "neighbours=3 needs the data of the run"),
        (["label_errors=true", "data.root=x"], "label_errors=true needs the data of the run"),
        (
            ["calibrate=true", "test_time=flip"],
            "for the predictions as the run makes them: leave test_time out",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_contradictions_are_refused_before_anything_is_loaded(overrides, told, tmp_path):
    (tmp_path / "no.ckpt").touch()
    with pytest.raises(UsageError, match=told):
        evaluated(tmp_path / "no.ckpt", *overrides)
