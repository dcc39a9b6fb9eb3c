"""Whole runs through the functions the entry points call."""

import csv
import json

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.evaluation.evaluate import evaluate
from headstart.runs.directory import find_checkpoint
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.run import train
from headstart.training.settle import make_paths_absolute


def evaluated(run, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [f"run={run}", *overrides])
        return evaluate(cfg, find_checkpoint(cfg.run, cfg.checkpoint))


def test_a_run_directory_holds_all_that_is_needed(quick, tmp_path):
    result = train(quick())
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} >= {
        "config.yaml",
        "classes.json",
        "split.csv",
        "metrics.json",
        "checkpoints",
    }
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((run / "tensorboard").glob("events*"))
    assert (run / "csv" / "metrics.csv").exists()
    written = json.loads((run / "metrics.json").read_text())
    assert written["test/acc"] == pytest.approx(result.metrics["test/acc"])
    assert written["score"] == pytest.approx(result.score)
    assert json.loads((run / "classes.json").read_text()) == {"class_0": 0, "class_1": 1}
    assert OmegaConf.load(run / "config.yaml").data.batch_size == 16


def test_the_run_alone_is_enough_to_test_again(quick, tmp_path):
    result = train(quick("trainer.max_epochs=3"))
    again = evaluated(tmp_path / "run")
    assert again == pytest.approx({k: v for k, v in result.metrics.items() if k.startswith("test/")}, abs=1e-6)
    val = evaluated(tmp_path / "run", "split=val")
    assert val == pytest.approx({k: v for k, v in result.metrics.items() if k.startswith("val/")}, abs=1e-6)
    assert json.loads((tmp_path / "run" / "metrics_test.json").read_text()) == pytest.approx(again)
    file = evaluated(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert file == pytest.approx(again)


def test_a_flip_at_test_time_is_saved_and_can_be_asked_for_later(quick, tmp_path):
    runs = {}
    for flip in ("false", "true"):
        run = tmp_path / flip
        train(quick(*["test_time=flip"] * (flip == "true"), f"paths.run={run}"))
        runs[flip] = json.loads((run / "metrics.json").read_text())
    assert runs["true"]["val/loss"] == runs["false"]["val/loss"]
    assert runs["true"]["test/loss"] != runs["false"]["test/loss"]
    task, _ = checkpoint.load_task(tmp_path / "true/checkpoints/best.ckpt")
    assert task.test_time is not None
    again = evaluated(tmp_path / "false", "test_time=flip")
    assert again["test/loss"] == pytest.approx(runs["true"]["test/loss"], rel=1e-5)
    assert not (tmp_path / "false/metrics_test.json").exists(), "it is not the run's own result"


def test_one_rate_curve_a_group(quick, tmp_path):
    train(quick("scheduler=none", "optimizer.lr=0.01", "task.layer_lr_decay=0.5"))
    with (tmp_path / "run/csv/metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if k.startswith("lr/") and v} for row in csv.DictReader(file)]
    rates = next(row for row in rows if row)
    assert rates == pytest.approx({
        "lr/stem": 0.000125, "lr/stage1": 0.00025, "lr/stage2": 0.0005, "lr/stage3": 0.001, "lr/head": 0.01,
    })  # fmt: skip


def test_the_score_is_the_best_epochs_not_the_last(quick, tmp_path):
    result = train(quick("trainer.max_epochs=6", "optimizer.lr=0.3", "scheduler=none"))
    with (tmp_path / "run/csv/metrics.csv").open() as file:
        scores = [float(row["val/acc"]) for row in csv.DictReader(file) if row["val/acc"]]
    assert result.score == pytest.approx(max(scores), abs=1e-6)
    best = checkpoint.read(tmp_path / "run/checkpoints/best.ckpt")
    assert best["metrics"]["val/acc"] == pytest.approx(max(scores), abs=1e-6)
    assert best["epoch"] == scores.index(max(scores))
    assert checkpoint.read(tmp_path / "run/checkpoints/last.ckpt")["epoch"] == 5


def test_checkpoints_are_plain_data(quick, tmp_path):
    train(quick())
    content = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    facts = content["hyper_parameters"]
    assert facts["classes"] == ["class_0", "class_1"]
    assert facts["preprocess"] == {
        "_target_": "headstart.inputs.images.preprocess.ImagePreprocess",
        "image_size": 16, "resize_size": 16, "interpolation": "bilinear", "resize_mode": "crop",
        "grey_bits": 16,
    }  # fmt: skip
    assert facts["config"]["seed"] == 0
    task, config = checkpoint.load_task(tmp_path / "run/checkpoints/best.ckpt")
    assert not task.training
    assert config.data.num_samples == 80


def test_same_seed_same_weights_other_seed_other_weights(quick, tmp_path):
    def weights(seed, run):
        train(quick(f"seed={seed}", f"paths.run={tmp_path / run}", "test=false"))
        return checkpoint.read(tmp_path / run / "checkpoints/last.ckpt")["state_dict"]

    first, again, other = weights(0, "a"), weights(0, "b"), weights(1, "c")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.0.weight"], other["head.0.weight"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["task=binary", "head=mlp", "head.norm=batch"],
        ["task=multilabel", "data.multi_label=true", "data.num_classes=3", "scheduler=plateau"],
        ["augmentation=flip_crop", "data.num_workers=1", "monitor=val/loss"],
        [
            "finetuning=feature_extraction",
            "optimizer=sgd",
            "scheduler=step",
            "data.class_weights=balanced",
            "task.objective.label_smoothing=0.1",
        ],
        ["scheduler=onecycle", "data.sampler=balanced"],
        ["scheduler=none", "optimizer=adam", "data.num_folds=4", "data.fold=3"],
        ["model.weights=null", "data.test_fraction=0"],
        ["debug=fast"],
    ],
    ids=" ".join,
)
def test_choices_run(overrides, quick):
    result = train(quick("trainer.max_epochs=1", *overrides))
    assert result.score is not None
    assert any(name.startswith("test/") for name in result.metrics) == ("data.test_fraction=0" not in overrides)


def test_training_learns(quick):
    """Two colours cannot be missed: a chain broken anywhere would guess."""
    result = train(quick("trainer.max_epochs=4", "data.num_classes=3", "optimizer.lr=1e-2"))
    assert result.metrics["test/acc"] > 0.9


def test_chained_transfer(quick, tmp_path):
    """A run's backbone is the next run's start, and says so."""
    train(quick())
    chained = quick(f"model.weights={tmp_path / 'run'}", f"paths.run={tmp_path / 'next'}", "data.num_classes=4")
    data = build_data(chained)
    task = build_task(chained, data)
    start = checkpoint.read(tmp_path / "run/checkpoints/best.ckpt")["state_dict"]
    for name, tensor in task.backbone.state_dict().items():
        assert torch.equal(tensor, start[f"backbone.{name}"]), name
    assert task.backbone.pretrained
    assert task.head[0].out_features == 4


def test_validate_and_test_after_fit_change_nothing(quick):
    cfg = quick("finetuning=full")
    data = build_data(cfg)
    task, trainer = build_task(cfg, data), build_trainer(cfg)
    trainer.fit(task, data)
    before = {k: v.clone() for k, v in task.state_dict().items()}
    learning = [p.requires_grad for p in task.parameters()]
    trainer.validate(task, data, verbose=False)
    trainer.test(task, data, verbose=False)
    trainer.predict(task, data.loader("test"))
    assert [p.requires_grad for p in task.parameters()] == learning
    assert all(torch.equal(v, before[k]) for k, v in task.state_dict().items())


def test_strategies_act_in_fit_alone(quick):
    """Lightning's own callback freezes again whenever it is set up, for a test too."""
    cfg = quick("finetuning=full", "trainer.max_epochs=1")
    data = build_data(cfg)
    task, trainer = build_task(cfg, data), build_trainer(cfg)
    trainer.fit(task, data)
    task.backbone.requires_grad_(False)  # another stage's state, which nothing but fit may change
    trainer.test(task, data, verbose=False)
    assert not any(p.requires_grad for p in task.backbone.parameters())


def test_evaluating_train_takes_every_sample_once(quick, tmp_path):
    train(quick("data.sampler=balanced", "data.batch_size=5", "trainer.max_epochs=1"))
    evaluated(tmp_path / "run", "split=train")
    data = build_data(quick("data.sampler=balanced", "data.batch_size=5"))
    data.connect(torch.nn.Identity(), torch.nn.Identity())
    assert sum(len(targets) for _, targets in data.loader("train")) == data.num_samples["train"]


def test_weighted_loss_is_the_same_when_evaluated_again(quick, tmp_path):
    result = train(quick("data.class_weights=balanced", "data.num_classes=3", "data.num_samples=100"))
    assert evaluated(tmp_path / "run")["test/loss"] == pytest.approx(result.metrics["test/loss"], abs=1e-6)


def test_a_run_can_be_used_from_any_folder_by_any_name(quick, tmp_path, monkeypatch):
    result = train(quick())
    monkeypatch.chdir(tmp_path / "run/checkpoints")
    assert evaluated("best.ckpt")["test/acc"] == pytest.approx(result.metrics["test/acc"])


def test_a_relative_root_is_kept_absolute(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    cfg = composed("data=image_folder", "data.root=pictures")
    make_paths_absolute(cfg)
    assert cfg.data.root == str(tmp_path / "pictures")


@pytest.mark.slow
def test_an_image_size_that_came_from_the_weights_is_kept(quick, tmp_path):
    """A ViT's state dict says its own size; rebuilt without weights it must have it too."""
    from torchvision.models import vit_b_32

    torch.save(vit_b_32(image_size=64).state_dict(), tmp_path / "vit.pth")
    cfg = quick("model=vit_b_32", f"model.weights={tmp_path / 'vit.pth'}", "trainer.max_epochs=1",
                "finetuning=feature_extraction")  # fmt: skip
    cfg.model.image_size = None
    result = train(cfg)
    assert evaluated(tmp_path / "run")["test/loss"] == pytest.approx(result.metrics["test/loss"], abs=1e-5)


def test_without_a_checkpoint_of_the_best_the_last_weights_are_tested(quick, caplog):
    result = train(quick("~callbacks.best_checkpoint"))
    assert "no checkpoint watches val/acc" in caplog.text
    assert "test/acc" in result.metrics


@pytest.mark.parametrize("callbacks", ["default", "ema"])
def test_without_validation_the_last_epoch_is_kept(callbacks, quick, tmp_path, caplog):
    words = (
        "data.val_fraction=0", "finetuning=full", "scheduler=none", "trainer.limit_train_batches=3",
        f"callbacks={callbacks}",
    )  # fmt: skip
    result = train(quick(*words))
    assert result.score is None
    assert "there are no validation samples: nothing chooses the best epoch" in caplog.text
    best, last = (checkpoint.read(tmp_path / f"run/checkpoints/{name}.ckpt") for name in ("best", "last"))
    assert best["global_step"] == last["global_step"] == 6
    again = evaluated(tmp_path / "run")
    assert again == pytest.approx({k: v for k, v in result.metrics.items() if k.startswith("test/")}, abs=1e-6)
    train(quick(*words, "trainer.max_epochs=3", f"resume={tmp_path / 'run'}"))
    assert checkpoint.read(tmp_path / "run/checkpoints/best.ckpt")["global_step"] == 9


def test_unknown_metric_is_refused_before_training(quick):
    with pytest.raises(UsageError, match=r"monitor=val/accuracy is no metric of this task, did you mean 'val/acc'\?"):
        train(quick("monitor=val/accuracy"))


def test_binary_task_refuses_three_classes(quick):
    with pytest.raises(UsageError, match="the data has 3: use task=classification"):
        train(quick("task=binary", "data.num_classes=3"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run=nowhere", "run=nowhere: no such file or folder"),
        ("checkpoint=bset", "no checkpoint 'bset' in its checkpoints folder; there are: best, last"),
    ],
)
def test_evaluate_refuses_with_what_to_type(override, message, quick, tmp_path):
    train(quick("trainer.max_epochs=1", "test=false"))
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        evaluated(tmp_path / "run", override)


def test_a_hostile_or_damaged_checkpoint_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": {}, "x": Payload()}, tmp_path / "hostile.ckpt")
    with pytest.raises(UsageError, match="no checkpoint that can be read safely"):
        checkpoint.read(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "owned").exists()
    torch.save({"state_dict": {"a": torch.zeros(10_000)}}, tmp_path / "whole.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "whole.ckpt").read_bytes()[:2000])
    with pytest.raises(UsageError, match="no checkpoint that can be read safely"):
        checkpoint.read(tmp_path / "cut.ckpt")
    with pytest.raises(UsageError, match="no checkpoint of a Headstart run"):
        checkpoint.read(tmp_path / "whole.ckpt")


def test_evaluate_on_other_pictures_matches_classes_by_name(composed, tmp_path):
    """A folder of class folders without splits is wholly the split asked for; its own order of classes is not used."""
    from PIL import Image

    def folder(root, classes):
        for place, (name, colour) in enumerate(classes.items()):
            (root / name).mkdir(parents=True)
            for i in range(12):
                picture = torch.full((3, 16, 16), 20, dtype=torch.uint8)
                picture[colour] = 200 + i + place
                Image.fromarray(picture.permute(1, 2, 0).numpy()).save(root / name / f"{i}.png")

    folder(tmp_path / "first", {"blue": 2, "green": 1, "red": 0})
    folder(tmp_path / "second", {"green": 1, "red": 0})
    cfg = composed(
        "data=image_folder", f"data.root={tmp_path / 'first'}", "data.val_fraction=0.25", "data.test_fraction=0.25",
        "data.batch_size=4", "trainer=cpu", "trainer.max_epochs=8", "model.image_size=16", "optimizer.lr=1e-2",
        "trainer.enable_progress_bar=false",
    )  # fmt: skip
    assert train(cfg).metrics["test/acc"] == 1.0
    other = evaluated(tmp_path / "run", f"data.root={tmp_path / 'second'}")
    assert other["test/acc"] == 1.0
    folder(tmp_path / "third", {"yellow": 1})
    with pytest.raises(UsageError, match="train has the class 'yellow', which the model does not have"):
        evaluated(tmp_path / "run", f"data.root={tmp_path / 'third'}")


def test_seed_zero_seeds(quick, monkeypatch):
    seen = []
    monkeypatch.setattr(pl, "seed_everything", lambda seed, **_: seen.append(seed))
    cfg = quick("seed=0", "trainer.max_epochs=1")
    with open_dict(cfg):
        cfg.test = False
    train(cfg)
    assert seen == [0]
