"""The settings that `finetuning=auto` chooses, and the model that it keeps."""

import csv
import itertools
import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from photos import pictures

import headstart.training.run
from headstart.callbacks.blend import SHARE, Blend, _best, _between
from headstart.datasets.image_folder import ImageFolder
from headstart.errors import UsageError
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask
from headstart.training.auto import (
    Facts,
    decide,
    facts_of,
    hold_nothing_out,
    is_vision_transformer,
    recommend,
    warnings,
)
from headstart.training.build import build_data, editable_copy
from headstart.training.run import train
from headstart.training.settle import settle_by_data


@pytest.fixture(autouse=True)
def _no_head_is_enough(monkeypatch):
    """The pictures of these tests are so easy that no run would have a second stage."""
    monkeypatch.setattr("headstart.training.auto.GOOD_PROBE", 2.0)
    monkeypatch.setattr("headstart.training.auto.SMALL_VALIDATION", 0)


def test_few_validation_samples_are_trained_on(composed, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("headstart.training.auto.SMALL_VALIDATION", 50)
    pictures(tmp_path / "mine", ["a", "b"], 12)
    words = (
        "experiment=auto", "data=image_folder", f"data.root={tmp_path / 'mine'}", "trainer=cpu", "model.image_size=16",
        "trainer.enable_progress_bar=false", "data.test_fraction=0.25",
    )  # fmt: skip
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 2)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 2)
    read = []
    dataset = ImageFolder.dataset
    monkeypatch.setattr(ImageFolder, "dataset", lambda self, split: read.append(split) or dataset(self, split))
    with caplog.at_level(logging.INFO):
        result = train(composed(*words))
    assert read == ["train", "val", "test"], "the samples are read once"
    assert "data.val_fraction=0: 4 validation samples are too few to choose by" in caplog.text
    assert (result.num_train, result.score) == (18, None)
    assert result.kept.model == "epoch 3"
    rows = list(csv.DictReader((tmp_path / "run/split.csv").open()))
    assert [row["split"] for row in rows].count("val") == 0
    assert "val_fraction=0" in (tmp_path / "run/auto.txt").read_text()


@pytest.mark.parametrize(
    "word",
    ["data.val_fraction=0.15", "monitor=val/loss", "scheduler=plateau", "head=mlp", "data.num_folds=3 data.fold=0"],
)
def test_validation_samples_that_are_asked_for_stay(word, composed, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.training.auto.SMALL_VALIDATION", 50)
    pictures(tmp_path / "mine", ["a", "b"], 12)
    words = ("experiment=auto", "data=image_folder", f"data.root={tmp_path / 'mine'}", *word.split())
    monkeypatch.setattr("headstart.training.auto.command_line_overrides", lambda: word.split())
    cfg = composed(*words)
    assert hold_nothing_out(cfg, build_data(cfg)) is None


def test_with_very_few_samples_only_the_probe_is_trained():
    few = {"counts": [4, 5], "num_val": 0, "fewest_val": 0}
    assert settled(**few)["trainer.max_epochs"] == 1
    assert settled(**few | {"counts": [5, 5]})["trainer.max_epochs"] == 31


def test_no_mistake_on_few_samples_does_not_end_the_run(monkeypatch):
    monkeypatch.setattr("headstart.training.auto.SMALL_VALIDATION", 50)
    assert "finetuning.goal" not in settled(num_val=50)
    assert settled(num_val=49)["finetuning.goal"] is None


def settled(**facts):
    facts = {"counts": [100, 100], "num_val": 1000, "fewest_val": 100} | facts
    facts = {"num_train": sum(facts["counts"])} | facts
    found = {decision.key: decision.value for decision in decide(Facts(**facts))}
    found.pop("finetuning.head_goal", None)
    return found


UNEVEN = {"data.class_weights": "balanced", "monitor": "val/acc_macro"}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, {"trainer.max_epochs": 31}),
        ({"counts": [340, 340]}, {"trainer.max_epochs": 25}),
        ({"counts": [1700] * 10}, {"trainer.max_epochs": 6}),
        (
            {"counts": [500, 99]},
            {"trainer.max_epochs": 28, "data.class_weights": "balanced", "monitor": "val/acc_macro"},
        ),
        ({"counts": [500, 100]}, {"trainer.max_epochs": 28}),
        ({"counts": [500, 0]}, {"trainer.max_epochs": 31}),
        (
            {"counts": [500, 60], "num_train": 520, "several_labels": True},
            {"trainer.max_epochs": 31, "monitor": "val/map"},
        ),
        ({"counts": [500, 60], "num_train": 520, "several_labels": True, "num_val": 0}, {"trainer.max_epochs": 31}),
    ],
    ids=str,
)
def test_settings(facts, expected):
    assert settled(**facts) == expected


@pytest.mark.parametrize(
    ("facts", "given", "contrastive"),
    [
        ({}, (), None),
        ({"contrastive_up_to": 199}, (), None),
        ({"contrastive_up_to": 200}, (), True),
        ({"contrastive_up_to": 200, "several_labels": True}, (), None),
        ({"contrastive_up_to": 200, "counts": [], "num_train": 200}, (), None),
        ({"contrastive_up_to": 200}, ("finetuning.contrastive",), None),
        ({"contrastive_up_to": 200}, ("finetuning.soften_head",), None),
        ({"contrastive_up_to": 200, "counts": [4, 4], "num_val": 0}, (), None),
    ],
    ids=str,
)
def test_few_samples_are_learned_in_pairs(facts, given, contrastive):
    facts = {"counts": [100, 100], "num_val": 1000, "fewest_val": 100} | facts
    facts = {"num_train": sum(facts["counts"])} | facts
    found = {decision.key: decision.value for decision in decide(Facts(**facts), given)}
    assert found.get("finetuning.contrastive") == contrastive


@pytest.mark.parametrize(
    ("num_val", "more", "goal"),
    [
        (1000, {}, 0.995),
        (200, {}, 0.98),
        (400, {}, 0.9875),
        (30, {}, 0.98),
        (0, {}, None),
        (200, {"counts": [500, 10]}, None),  # goes by another metric
        (200, {"several_labels": True}, None),
    ],
)
def test_a_head_that_cannot_be_told_from_a_better_model_is_enough(num_val, more, goal, monkeypatch):
    monkeypatch.setattr("headstart.training.auto.GOOD_PROBE", 0.98)
    facts = {"counts": [100, 100], "num_train": 200, "fewest_val": 10} | more
    facts["num_train"] = more.get("num_train", sum(facts["counts"]))
    keys = {decision.key: decision.value for decision in decide(Facts(num_val=num_val, **facts))}
    assert keys.get("finetuning.head_goal") == goal


def test_a_time_limit_bounds_the_epochs():
    facts = Facts(1000, [500, 500], num_val=300, fewest_val=100)
    found = {setting.key: setting for setting in decide(facts, limit=100.0, time_per_sample=lambda: 0.01)}
    epochs = found["trainer.max_epochs"]
    assert epochs.value == 1 + math.floor(0.8 * 100 / 11)
    assert "as many as fit into trainer.max_time, at about 11 s each" in epochs.reason
    (least,) = (d for d in decide(facts, (), 1e-3, lambda: 1.0) if d.key == "trainer.max_epochs")
    assert least.value == 2


def test_given_settings_are_not_chosen_again():
    facts = Facts(600, [500, 100], num_val=300, fewest_val=100)
    assert decide(facts, {"trainer.max_epochs", "finetuning.head_goal"}) == []
    (epochs,) = decide(facts, closed_form_head=False)
    assert (epochs.value, epochs.reason) == (27, "600 training samples")


def test_small_pictures_are_not_enlarged_more_than_helps(quick, monkeypatch):
    """And learning is timed at the size that was chosen or given."""
    timed = []
    monkeypatch.setattr(
        "headstart.training.auto.seconds_per_sample",
        lambda backbone, accelerator: timed.append(backbone.preprocess.image_size) or 0.01,
    )
    words = ("model=resnet18", "model.weights=null", "trainer.max_time=00:00:10:00")
    for image_size, expected in (("null", {"model.image_size": 128}), ("64", {})):
        cfg = quick(*AUTO, *words, f"model.image_size={image_size}")
        found = {setting.key: setting.value for setting in recommend(cfg, build_data(cfg)).settings}
        assert {key: value for key, value in found.items() if key.startswith("model.")} == expected
    assert timed == [128, 64]


def test_a_network_that_takes_no_small_pictures_gets_none(quick, tmp_path):
    """MaxViT's windows fit its own size alone."""
    cfg = quick(*AUTO, "model=torchvision", "model.name=maxvit_t", "model.weights=null", "model.image_size=null")
    Path(cfg.paths.run).mkdir()
    settle_by_data(cfg, build_data(cfg), [])
    assert cfg.model.image_size is None
    assert "model.image_size" not in (tmp_path / "run/auto.txt").read_text()


@pytest.mark.parametrize(
    ("words", "ratio"),
    [
        ([], 0.3),
        (["data.num_samples=30", "data.num_classes=2"], 0.1),
        (["task.backbone_lr_ratio=0.2"], 0.2),
        (["finetuning=probe"], 0.1),
        (
            ["model=torchvision", "model.name=squeezenet1_1", "model.weights=no_batch_norm.pth", "model.image_size=64"],
            0.1,
        ),
    ],
    ids=str,
)
def test_a_pretrained_network_with_batch_norm_learns_at_a_higher_rate(words, ratio, quick, tmp_path):
    """Unless there is little to learn from, it is not to learn, or a rate is given on the command line or in a file."""
    cfg = quick("experiment=auto", "data.num_samples=200", "data.num_classes=2", *words)
    Path(cfg.paths.run).mkdir()
    settle_by_data(cfg, build_data(cfg), [])
    assert cfg.task.backbone_lr_ratio == ratio
    told = (tmp_path / "run/auto.txt").read_text()
    assert ("task.backbone_lr_ratio=" in told) == (ratio == 0.3)
    assert f"{ratio} times that for the backbone" in told
    assert "all epochs are run unless validation finds no mistake" in told


@pytest.mark.parametrize("monitor", ["val/loss", "val/auroc_macro", "val/ece"])
def test_only_an_accuracy_has_a_goal(monitor, composed):
    facts = Facts(600, [300, 300], num_val=300, fewest_val=100)
    assert "finetuning.head_goal" not in {decision.key for decision in decide(facts, monitor=monitor)}
    assert composed("experiment=auto", f"monitor={monitor}").finetuning.goal is None
    assert composed("experiment=auto").finetuning.goal == 1.0


@pytest.mark.parametrize(
    "word", ["head=mlp", "task.objective.focal_gamma=2", pytest.param("lr_find=true", marks=pytest.mark.slow)]
)
def test_a_head_that_cannot_be_computed_learns(word, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 2)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 2)
    train(quick(*AUTO, word, "trainer.limit_train_batches=null", "test=false"))
    assert not OmegaConf.load(tmp_path / "run/config.yaml").finetuning.solve_head
    assert "finetuning.solve_head=false: " in (tmp_path / "run/auto.txt").read_text()


def test_lower_layers_of_a_vision_transformer_learn_more_slowly():
    pytest.importorskip("timm")
    from headstart.backbones.timm import TimmBackbone

    facts = Facts(600, [300, 300], num_val=300, fewest_val=100)
    for name, expected in (("test_vit", True), ("test_efficientnet", False)):
        assert is_vision_transformer(TimmBackbone(name=name, weights=None)) is expected
        found = decide(replace(facts, vision_transformer=expected))
        assert [setting.value for setting in found if setting.key == "task.layer_lr_decay"] == [0.75] * expected
    typed = decide(replace(facts, vision_transformer=True), {"task.layer_lr_decay"})
    assert all(setting.key != "task.layer_lr_decay" for setting in typed)


def test_an_encoder_of_texts_is_no_vision_transformer():
    pytest.importorskip("tokenizers")
    import tiny_text

    assert not is_vision_transformer(tiny_text.backbone())


def test_what_to_expect_is_told():
    assert warnings(Facts(100, [50, 50], 700, 350)) == []
    assert warnings(Facts(100, [50, 50], 0, 0)) == []
    few, noisy, rare = warnings(Facts(308, [8, 300], 100, 3))
    assert "the smallest class has 8 training samples" in few
    assert "moves a score by about 5 points" in noisy
    assert "the rarest class of validation has 3" in rare


def test_the_facts_are_those_of_the_data(quick):
    data = build_data(quick())
    facts = facts_of(data)
    counts = data.class_counts("val")
    assert facts == Facts(data.num_samples["train"], data.class_counts(), sum(counts), min(counts))


# without a goal, which is reached at once: the pictures are that easy
AUTO = [
    "experiment=auto",
    "finetuning.goal=null",
    "finetuning.head_goal=null",
    "data.num_classes=3",
    "data.num_samples=120",
    "trainer.max_epochs=3",
]


def resumed(result):
    """The config with which a run goes on."""
    cfg = editable_copy(result.cfg)
    cfg.resume = cfg.paths.run
    return cfg


def told_of(monkeypatch, *metrics):
    """What validation says of the averages, and then of the last weights where the probe was kept until then."""
    said = itertools.chain(metrics, itertools.repeat({"val/acc": 1.0, "val/loss": 99.0}))
    monkeypatch.setattr("pytorch_lightning.Trainer.validate", lambda *_, **__: [next(said)])


def test_a_run_settles_what_is_open_and_keeps_the_best(quick, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 4)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 2)
    cfg = quick(*AUTO)
    with caplog.at_level(logging.INFO):
        result = train(cfg)
    assert OmegaConf.load(tmp_path / "run/config.yaml").trainer.max_epochs == 5
    assert "trainer.max_epochs=5: 1 for the linear probe" in (tmp_path / "run/auto.txt").read_text()
    assert "the smallest class has" not in caplog.text
    probe = checkpoint.read(tmp_path / "run/checkpoints/probe.ckpt")
    best = checkpoint.read(tmp_path / "run/checkpoints/best.ckpt")
    assert best["metrics"]["val/acc"] == result.score >= probe["metrics"]["val/acc"]
    assert "kept: " in caplog.text


def test_a_run_without_a_mistake_on_validation_ends(quick, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(quick(*AUTO, "finetuning.goal=1.0"))
    assert "val/acc is 1.0000: the run ends (its goal was 1)" in caplog.text
    assert "kept: linear probe: nothing was fine-tuned" in caplog.text


@pytest.mark.parametrize("scores", [{"val/acc": 2.0, "val/loss": 9.0}, {"val/acc": 1.0, "val/loss": -1.0}])
def test_an_average_that_is_better_is_kept_and_tested(scores, quick, tmp_path, monkeypatch, caplog):
    """Whatever validation says of the half-way weights: they are made to win, by accuracy or, of equals, by loss."""
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 2)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 2)
    told_of(monkeypatch, scores)
    cfg = quick(*AUTO, "callbacks.blend.shares=[0.5]")
    with caplog.at_level(logging.INFO):
        train(cfg)
    states = [checkpoint.read(tmp_path / f"run/checkpoints/{name}.ckpt")["state_dict"] for name in ("probe", "best")]
    last = checkpoint.read(tmp_path / "run/checkpoints/last.ckpt")["state_dict"]
    weight = "backbone.stem.0.weight" if "backbone.stem.0.weight" in last else next(iter(last))
    assert "kept: average, 0.5 of the way" in caplog.text
    assert not torch.equal(states[0][weight], states[1][weight])


@pytest.mark.parametrize(
    ("average", "tuned", "winner"),
    [
        pytest.param(
            {"val/acc": 1.0, "val/loss": 99.0}, {"val/acc": 1.0, "val/loss": -1.0}, "last", marks=pytest.mark.slow
        ),
        ({"val/acc": 1.0, "val/loss": 99.0}, {"val/acc": 1.0, "val/loss": 98.0}, "probe"),
        pytest.param(
            {"val/acc": math.nan, "val/loss": -2.0}, {"val/acc": 0.9, "val/loss": -1.0}, "probe", marks=pytest.mark.slow
        ),
    ],
)
def test_the_lowest_loss_decides_between_equal_scores(average, tuned, winner, quick, tmp_path, monkeypatch, caplog):
    """The probe, which finds no mistake either, was kept first."""
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 3)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 3)
    told_of(monkeypatch, average, tuned)
    with caplog.at_level(logging.INFO):
        train(quick(*AUTO, "callbacks.blend.shares=[0.5]", "test=false"))
    best, kept = (checkpoint.read(tmp_path / f"run/checkpoints/{name}.ckpt") for name in ("best", winner))
    assert all(torch.equal(value, kept["state_dict"][name]) for name, value in best["state_dict"].items())
    assert f"kept: {'fine-tuned' if winner == 'last' else 'linear probe'}" in caplog.text


@pytest.mark.parametrize(
    ("scores", "monitor", "best"),
    [
        ([0.5, 0.7, 0.6], "val/auroc", (1, 1)),
        ([0.5, 0.7, 0.6], "val/ece", (0, 1)),
        ([0.5, 0.5, math.nan], "val/auroc", (1, 2)),
        ([math.nan] * 3, "val/ece", (2, 3)),
    ],
)
def test_the_best_of_scores(scores, monitor, best):
    """Their losses are 3, 2 and 1."""
    found = {share: {monitor: score, "val/loss": 3 - share} for share, score in enumerate(scores)}
    assert _best(found, monitor) == best


def test_a_loss_that_is_no_number_is_not_the_lowest():
    found = {0.0: {"val/acc": 1.0, "val/loss": math.nan}, 1.0: {"val/acc": 1.0, "val/loss": 0.1}}
    assert _best(found, "val/acc") == (1.0, 2)


def test_a_balanced_sampler_needs_no_class_weights(quick, monkeypatch):
    monkeypatch.setattr("headstart.training.auto.UNBALANCED", 0.5)
    for words, weights in ([], "balanced"), (["data.sampler=balanced"], "none"):
        cfg = quick(*AUTO, *words)
        Path(cfg.paths.run).mkdir(exist_ok=True)
        data = build_data(cfg)
        settle_by_data(cfg, data, [])
        assert cfg.data.class_weights == data.weighting == weights
        assert (cfg.monitor, cfg.mode) == ("val/acc_macro", "max")


def test_the_time_is_measured_once_by_one_process_with_the_network_as_it_will_be(quick, monkeypatch):
    def measured(backbone, accelerator):
        asked.append(backbone.preprocess.image_size)
        return 1e-9

    monkeypatch.setattr("headstart.training.auto.seconds_per_sample", measured)
    monkeypatch.setattr("headstart.inputs.images.preprocess.SIZE_FOR_SMALL", 8)
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 5)
    cfg = quick(*AUTO, "trainer.max_time=00:00:10:00", "compare_scratch=true", "trainer.max_epochs=2")
    asked = []
    headstart.training.run.run(cfg)
    assert asked == [8]
    cfg.trainer.devices = 2
    settle_by_data(cfg, build_data(cfg), [])
    assert len(asked) == 1, "two processes would settle on different numbers of epochs"


def test_of_several_better_averages_the_best_is_kept_and_a_resumed_run_leaves_it_alone(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 2)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 2)
    told_of(monkeypatch, *({"val/acc": score, "val/loss": 1.0} for score in (2.0, 3.0, 2.5, 1.0)))
    first = train(quick(*AUTO))
    assert first.score == 3.0
    best = tmp_path / "run/checkpoints/best.ckpt"
    kept = checkpoint.read(best)
    assert kept["metrics"][SHARE] == 0.5
    assert train(resumed(first)).score == 3.0  # as after an interruption of the test
    again = checkpoint.read(best)["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in kept["state_dict"].items())


@pytest.mark.slow
def test_a_run_that_was_killed_after_its_probe_was_kept_begins_anew(quick, tmp_path):
    first = train(quick(*AUTO))
    for name in ("best", "last"):
        (tmp_path / f"run/checkpoints/{name}.ckpt").unlink()
    assert train(resumed(first)).score == 1.0


def test_averages_are_no_points_of_the_curves(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 2)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 2)
    train(quick(*AUTO))
    with (tmp_path / "run/csv/metrics.csv").open() as stream:
        epochs = [row["epoch"] for row in csv.DictReader(stream) if row["val/acc"]]
    assert epochs == ["0", "1", "2"]


def test_a_probe_that_was_not_validated_is_validated_with_the_averages(quick, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 3)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 3)
    with caplog.at_level(logging.INFO):
        train(quick(*AUTO, "+trainer.check_val_every_n_epoch=2", "optimizer.lr=10"))
    assert "kept: linear probe: the best val/acc (linear probe 1.0000, " in caplog.text
    best, probe = (checkpoint.read(tmp_path / f"run/checkpoints/{name}.ckpt") for name in ("best", "probe"))
    assert all(torch.equal(value, probe["state_dict"][name]) for name, value in best["state_dict"].items())


def test_averages_are_validated_themselves_beside_a_moving_average(quick, monkeypatch):
    """What that has kept since the fit must not take their place."""
    monkeypatch.setattr("headstart.training.auto.MOST_EPOCHS", 1)
    monkeypatch.setattr("headstart.training.auto.FEWEST_EPOCHS", 1)
    heads = []

    def note(task, batch, index):
        heads.append(task.head[0].weight.clone())
        return step(task, batch, index)

    step = ClassificationTask.validation_step
    monkeypatch.setattr(ClassificationTask, "validation_step", note)
    ema = "+callbacks.ema._target_=headstart.callbacks.ema.EMA"
    train(quick(*AUTO, ema, "test=false", "callbacks.blend.shares=[0.25,0.75]", "data.batch_size=64"))
    probe, tuned, *averages, last = heads
    assert len(averages) == 2
    assert torch.equal(last, tuned)
    for average, share in zip(averages, (0.25, 0.75), strict=True):
        assert torch.allclose(average, probe.lerp(tuned, share), atol=1e-6)


def test_between():
    one = {"weight": torch.zeros(2), "steps": torch.tensor(3)}
    other = {"weight": torch.full((2,), 4.0), "steps": torch.tensor(7)}
    between = _between(one, other, 0.25)
    assert between["weight"].tolist() == [1.0, 1.0]
    assert between["steps"] == 7


def test_impossible_shares_are_refused():
    with pytest.raises(UsageError, match="numbers between 0 and 1"):
        Blend("x", [0.5, 1.0])
    with pytest.raises(UsageError, match="numbers between 0 and 1"):
        Blend("x", 1.0)


def test_one_share_needs_no_brackets():
    assert Blend("x", 0.5).shares == [0.5]
