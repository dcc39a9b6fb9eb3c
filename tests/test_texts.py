"""Texts go the whole way with the built-in encoder: train, resume, cache, evaluate, predict, export."""

import csv
import os
import shutil
import signal

import pytest
import pytorch_lightning as pl
import safetensors.torch
import tiny_text
import torch
from families import exhaustive_unless
from hydra import compose, initialize_config_dir

from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.evaluation.evaluate import evaluate
from headstart.export.export import export
from headstart.inference.predict import predict
from headstart.inputs.base import Length
from headstart.inputs.text.preprocess import TextPreprocess
from headstart.runs.directory import Run
from headstart.tasks import checkpoint
from headstart.training.auto import recommend
from headstart.training.build import build_data
from headstart.training.run import train
from headstart.training.settle import settle_by_data

OTHERS = [
    pytest.param(name, marks=pytest.mark.exhaustive)
    for name in ("gradual", "probe", "lp_ft", "contrastive", "bitfit", "lora")
]
STRATEGIES = ["full", "auto", *OTHERS]


class StopsAt(pl.Callback):
    """Presses Ctrl-C after this number of steps, in the middle of an epoch."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def reviews(tmp_path):
    """A table of reviews in which one word decides the class, and a folder with a pretrained model."""
    table = tmp_path / "reviews.csv"
    with table.open("w", newline="") as stream:
        rows = [(tiny_text.review(n, tiny_text.CLASSES[n % 2]), tiny_text.CLASSES[n % 2]) for n in range(120)]
        csv.writer(stream).writerows([("review", "label"), *rows])
    folder = tiny_text.write_model(tmp_path / "model")
    torch.manual_seed(0)
    safetensors.torch.save_file(tiny_text.backbone().net.state_dict(), folder / "model.safetensors")
    return table


@pytest.fixture
def configured(composed, reviews):
    """A configuration of a run on the reviews."""

    def compose_texts(*overrides: str):
        return composed(
            "data=text_table", f"data.root={reviews}", "model=transformers", f"model.name={reviews.parent / 'model'}",
            "data.batch_size=16", "optimizer.lr=0.01", "task.backbone_lr_ratio=1", "trainer=cpu",
            "trainer.max_epochs=4", "trainer.enable_progress_bar=false", "trainer.precision=32-true", *overrides,
        )  # fmt: skip

    return compose_texts


def asked(name: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_learns_and_an_evaluation_without_the_model_says_the_same(
    strategy, configured, tmp_path, monkeypatch
):
    monkeypatch.setattr(TextPreprocess, "run_length", Length(samples=1, fewest=2, most=2))  # of auto
    more = ["finetuning.goal=null", "finetuning.head_goal=null", "data.val_fraction=0.2"] if strategy == "auto" else []
    more += ["model.lora_rank=4"] if strategy == "lora" else []
    more += ["trainer.max_epochs=12", "optimizer.lr=0.02"] if strategy == "full" else ["trainer.max_epochs=3"]
    result = train(configured(f"finetuning={strategy}", *more))
    if strategy == "full":  # the others have too few steps to learn from random weights
        assert result.metrics["test/acc"] > 0.8
    shutil.rmtree(tmp_path / "model")
    run = tmp_path / "run"
    if strategy == "auto":
        choices = (run / "auto.txt").read_text()
        assert "finetuning.contrastive=true: " in choices
        assert "soften_head" not in choices
    metrics = evaluate(asked("evaluate", f"run={run}"), run / "checkpoints/best.ckpt")
    for name in ("test/acc", "test/loss"):
        assert metrics[name] == pytest.approx(result.metrics[name], abs=1e-5)
    with (run / "evaluation_test/predictions.csv").open() as stream:
        names = [row["path"] for row in csv.DictReader(stream)]
    split = [row["name"] for row in csv.DictReader(Run(run).split_file.open()) if row["split"] == "test"]
    assert names == split, "the rows are in the order of the split, not of the lengths"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=text_table", "data.root={reviews}"], "is for pictures, and the data hold texts: .*model=minilm"),
        (["model=transformers", "model.name={model}"], "is for texts, and the data hold none: .*model=resnet50"),
        (
            ["data=text_table", "data.root={reviews}", "model=transformers", "model.name={model}", "test_time=flip"],
            "test_time=flip: only pictures have a mirror image",
        ),
    ],
)
@pytest.mark.parametrize("strategy", ["auto", "full"])
def test_what_does_not_fit_together_is_refused_before_the_training(
    strategy, words, message, composed, reviews, tmp_path
):
    given = [word.format(reviews=reviews, model=reviews.parent / "model") for word in words]
    with pytest.raises(UsageError, match=message):
        train(composed(*given, f"finetuning={strategy}", "trainer=cpu", "trainer.enable_progress_bar=false"))
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize(
    ("words", "softened"),
    [
        ([], True),
        (["finetuning.contrastive=true"], False),
        (["finetuning.solve_head=false"], False),
        (["task=regression", "monitor=val/mae"], False),
        (["trainer.max_epochs=1"], False),
    ],
    ids=str,
)
def test_auto_softens_a_head_only_where_it_has_an_effect(words, softened, configured, tmp_path, monkeypatch):
    monkeypatch.setattr(TextPreprocess, "contrastive_up_to", 0)
    monkeypatch.setattr("headstart.training.auto.command_line_overrides", lambda: words)
    (tmp_path / "numbers.csv").write_text("".join(f"film {i},{i / 7}\n" for i in range(40)))
    more = [f"data.root={tmp_path / 'numbers.csv'}", "data.numbers=true"] if "task=regression" in words else []
    cfg = configured("finetuning=auto", *words, *more)
    found = {setting.key for setting in recommend(cfg, build_data(cfg)).settings}
    assert ("finetuning.soften_head" in found) == softened


def test_the_batch_size_of_auto_is_that_of_the_loaders(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(TextPreprocess, "contrastive_up_to", 50)
    monkeypatch.setattr("headstart.training.auto.command_line_overrides", list)
    cfg = configured("finetuning=auto", "data.batch_size=8", "data.val_fraction=0.4")
    data = build_data(cfg)
    settle_by_data(cfg, data, [])
    assert (data.batch_size, cfg.data.batch_size, cfg.optimizer.lr) == (16, 16, 1e-3)


def test_each_layer_sees_each_text_once_and_the_next_run_none(configured, tmp_path):
    words = ["finetuning=gradual", "trainer.max_epochs=5", "finetuning.patience=null"]
    cached = train(configured(*words))
    plain = train(configured(*words, "cache=off", f"paths.run={tmp_path / 'plain'}"))
    again = train(configured(*words, f"paths.run={tmp_path / 'again'}"))
    texts = 120 - 18  # without test
    # one pass for the three stages with frozen layers; the stages in which all layers are trained: train and val
    assert cached.passes == again.passes + texts
    assert plain.passes == 5 * texts
    assert cached.metrics == pytest.approx(plain.metrics, abs=1e-4)
    assert again.metrics == cached.metrics


@pytest.mark.parametrize("strategy", ["full", "contrastive", pytest.param("lp_ft", marks=pytest.mark.slow)])
def test_a_run_interrupted_within_an_epoch_ends_as_if_it_had_not_been(strategy, configured, tmp_path, monkeypatch):
    words = [f"finetuning={strategy}", "finetuning.patience=null", "test=false"]
    whole = train(configured(*words, f"paths.run={tmp_path / 'whole'}"))
    monkeypatch.setenv("HEADSTART_TRUST", "test_texts")
    with pytest.raises(SystemExit):
        train(configured(*words, "+callbacks.stop={_target_:test_texts.StopsAt,step:8}"))
    resumed = train(configured(*words, f"resume={tmp_path / 'run'}"))
    assert resumed.metrics == whole.metrics
    first, second = (checkpoint.read(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "run"))
    assert all(torch.equal(a, second["state_dict"][name]) for name, a in first["state_dict"].items())


def test_predictions_are_in_the_order_of_the_lines_and_those_of_the_evaluation(configured, reviews, tmp_path):
    train(configured("finetuning=full"))
    run = tmp_path / "run"
    evaluate(asked("evaluate", f"run={run}"), run / "checkpoints/best.ckpt")
    with (run / "evaluation_test/predictions.csv").open() as stream:
        expected = {row["path"]: row["predicted"] for row in csv.DictReader(stream)}
    output = tmp_path / "out.csv"
    assert predict(
        asked("predict", f"run={run}", f"input={reviews}", f"output={output}", "batch_size=8", "num_workers=0"),
        run / "checkpoints/best.ckpt",
    )
    with output.open() as stream:
        found = list(csv.DictReader(stream))
    texts = [row[0] for row in csv.reader(reviews.open())][1:]
    assert [row["text"] for row in found] == texts
    assert [row["file"] for row in found] == [f"{reviews}:{place}" for place in range(2, len(texts) + 2)]
    by_line = {f"reviews.csv:{row['file'].rpartition(':')[2]}": row["class_1"] for row in found}
    assert {name: by_line[name] for name in expected} == expected


@pytest.mark.parametrize("form", exhaustive_unless(["onnx"], ["onnx", "torch_export", "torchscript", "safetensors"]))
@pytest.mark.slow
def test_an_export_with_its_tokenizer_computes_the_same(form, configured, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    train(configured("finetuning=full", "test=false"))
    shutil.rmtree(tmp_path / "model")
    run = tmp_path / "run"
    facts = export(asked("export", f"run={run}", f"format={form}"), run / "checkpoints/best.ckpt")
    assert facts["parity"]["largest"] < 1e-4
    assert facts["parity"]["agreement"] == 1
    assert facts["input"] == {"name": "tokens", "type": "int64", "shape": ["batch", "length"]}
    (file,) = run.glob("export/*.tokenizer.json")
    assert facts["files"] == [file.name]
    again = TextPreprocess(file.read_text(), facts["preprocess"]["max_length"], facts["preprocess"]["pad"])
    expected = TextPreprocess(tiny_text.tokenizer().to_str(), tiny_text.LONGEST)
    assert again("A superb film.").tolist() == expected("A superb film.").tolist()
