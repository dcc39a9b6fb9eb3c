"""A kind of input that no core code has heard of goes the whole way: train, cache, evaluate, predict, export."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from families import exhaustive_unless
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from toy_texts import CLASSES, text

from headstart.cli.conf_files import CONF
from headstart.evaluation.evaluate import evaluate
from headstart.export.export import export
from headstart.inference.predict import predict
from headstart.report.build import report
from headstart.tasks import checkpoint
from headstart.training.run import train

STRATEGIES = ["full", "gradual", "probe", "lp_ft", "auto"]


@pytest.fixture
def toy(quick, monkeypatch):
    """A configuration of the toy encoder on made-up texts."""
    monkeypatch.setenv("HEADSTART_TRUST", "toy_texts")

    def compose_toy(*overrides: str):
        cfg = quick("optimizer.lr=0.01", *overrides)
        data = OmegaConf.to_container(cfg.data)
        for key in ("num_samples", "num_classes", "image_size", "multi_label", "numbers"):
            del data[key]
        cfg.data = data | {"_target_": "toy_texts.Texts", "num_texts": 80}
        cfg.model = {"_target_": "toy_texts.Encoder", "weights": "toy", "width": 16}
        return cfg

    return compose_toy


def asked(name: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.mark.parametrize("strategy", exhaustive_unless(["gradual", "auto"], STRATEGIES))
def test_every_strategy_learns_from_it_and_an_evaluation_says_the_same(strategy, toy, tmp_path):
    to_the_end = ["finetuning.goal=null", "finetuning.head_goal=null"] if strategy == "auto" else []
    result = train(toy(f"finetuning={strategy}", "trainer.max_epochs=4", *to_the_end))
    assert result.metrics["test/acc"] > 0.7
    run = tmp_path / "run"
    words = ("embedding=true", "neighbours=3", "label_errors=true", "worst=4")
    extra = words if importlib.util.find_spec("cleanlab") else words[:2]
    metrics = evaluate(asked("evaluate", f"run={run}", *extra), run / "checkpoints/best.ckpt")
    for name in ("test/acc", "test/loss"):
        assert metrics[name] == pytest.approx(result.metrics[name], abs=1e-5)
    assert (run / "evaluation_test/predictions.csv").is_file()


def test_frozen_features_of_texts_are_computed_once(toy, tmp_path):
    """Behind the whole encoder each text has a row of one length."""
    first = train(toy("finetuning=probe", "trainer.max_epochs=1"))
    again = train(toy("finetuning=probe", "trainer.max_epochs=1", f"paths.run={tmp_path / 'again'}"))
    assert first.passes == sum((56, 12))  # train and val
    assert again.passes == 0
    assert again.metrics == pytest.approx(first.metrics, abs=1e-6)


def test_rows_of_different_lengths_are_not_kept_and_the_run_says_so(toy, caplog):
    with caplog.at_level("INFO"):
        train(toy("finetuning=gradual", "trainer.max_epochs=4"))
    assert "activations of samples of different lengths have no common shape" in caplog.text


def test_a_resumed_run_ends_as_if_it_had_not_been_interrupted(toy, tmp_path):
    words = ("finetuning=lp_ft", "finetuning.patience=null", "scheduler=none")
    whole = train(toy(*words, "trainer.max_epochs=4", f"paths.run={tmp_path / 'whole'}"))
    cfg = toy(*words, "trainer.max_epochs=2")
    train(cfg)
    cfg.resume, cfg.trainer.max_epochs = str(tmp_path / "run"), 4
    resumed = train(cfg)
    assert resumed.metrics == whole.metrics
    states = [checkpoint.read(tmp_path / name / "checkpoints/last.ckpt")["state_dict"] for name in ("whole", "run")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.fixture
def trained_toy(toy, tmp_path):
    train(toy("finetuning=full", "trainer.max_epochs=8"))
    return tmp_path / "run"


def test_files_are_predicted_and_what_is_no_text_has_a_reason(trained_toy, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.txt").write_text(text(1000 + index, index % 2))
    (folder / "broken.txt").write_bytes(b"\xff\xfe\xff")
    (folder / "picture.jpg").write_bytes(b"passed over")
    output = tmp_path / "rows.csv"
    cfg = asked("predict", f"run={trained_toy}", f"input={folder}", f"output={output}", "trainer.accelerator=cpu")
    assert predict(cfg, trained_toy / "checkpoints/best.ckpt")
    with output.open() as stream:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(stream)}
    assert rows.pop("broken.txt")["error"] == "not a text"
    assert len(rows) == 6
    right = [row["class_1"] == CLASSES[int(name[0]) % 2] for name, row in rows.items()]
    assert sum(right) >= 5


@pytest.mark.parametrize("form", ["onnx", "safetensors", "torch_export"])
def test_an_export_gives_what_the_checkpoint_gives(form, trained_toy, monkeypatch):
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    monkeypatch.setattr("headstart.export.parity.SECONDS", 0.0)
    about = export(asked("export", f"run={trained_toy}", f"format={form}"), trained_toy / "checkpoints/best.ckpt")
    assert about["parity"]["largest"] < 1e-5
    assert about["input"] == {"name": "ids", "type": "int64", "shape": ["batch", "length"]}
    assert about["to_be_done_before"] == ["number the letters from 1", "fill up with 0"]


def test_a_report_tells_of_it(trained_toy):
    page, card = report(asked("report", f"run={trained_toy}"), trained_toy / "checkpoints/best.ckpt")
    html = page.read_text()
    assert "texts of up to 20 letters" in html
    assert "text-classification" in card.read_text()


def test_a_checkpoint_keeps_the_preprocessing_and_refuses_what_is_none(trained_toy):
    path = trained_toy / "checkpoints/best.ckpt"
    content = checkpoint.read(path)
    assert content["hyper_parameters"]["preprocess"] == {"_target_": "toy_texts.Tokens", "max_length": 20}
    task, _ = checkpoint.load_task(path)
    assert task.backbone.preprocess.max_length == 20
    assert json.loads((trained_toy / "classes.json").read_text()) == {"early": 0, "late": 1}
