"""Runs with `finetuning=contrastive`, and the head that is fitted to the changing features."""

import pytest
import torch
from hydra.utils import instantiate

from headstart.errors import UsageError
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.run import train

FEW = (
    "finetuning=contrastive", "data.num_samples=60", "data.num_classes=3", "data.batch_size=8", "optimizer.lr=0.01",
    "trainer.max_epochs=3", "test=false", "model.image_size=16",
)  # fmt: skip


def fitted_again(task, data):
    """The closed-form head of the features that the backbone of a run has now, computed without the run."""
    positions = range(data.num_samples["train"])
    with torch.no_grad():
        features = torch.cat([task.backbone.eval()(batch) for batch in data.inputs("train", positions)])
    targets = data.targets("train", positions)
    return task.objective.closed_form_head(features, targets, len(task.classes), data.seed)


@pytest.mark.parametrize("validates", [True, False], ids=["validates", "does not"])
def test_the_saved_head_belongs_to_the_saved_backbone(validates, quick, tmp_path):
    cfg = quick(*FEW, *([] if validates else ["data.val_fraction=0"]))
    before = instantiate(cfg.model).state_dict()
    train(cfg)
    for name in ("best", "last"):
        task, _ = checkpoint.load_any_task(tmp_path / f"run/checkpoints/{name}.ckpt")
        data = build_data(cfg)
        data.connect(task.backbone.preprocess, task.backbone.preprocess)
        solution = fitted_again(task, data)
        # the direction: without mistakes, rounding moves the temperature
        assert torch.cosine_similarity(task.head[0].weight.flatten(), solution.weight.flatten(), dim=0) > 0.9999
    assert any(not torch.equal(value, before[name]) for name, value in task.backbone.state_dict().items())


def test_features_of_a_class_become_more_similar(quick):
    cfg = quick(*FEW, "trainer.max_epochs=8", "finetuning.patience=null")
    data = build_data(cfg)
    task, trainer = build_task(cfg, data), build_trainer(cfg)
    positions = range(data.num_samples["train"])

    def loss():
        with torch.no_grad():
            features = torch.cat([task.backbone.eval()(batch) for batch in data.inputs("train", positions)])
        return task.objective.pair_loss(features, data.targets("train", positions)).item()

    before = loss()
    trainer.fit(task, data)
    assert loss() < 0.8 * before
    assert "train/acc" not in trainer.callback_metrics
    assert trainer.callback_metrics["train/loss"].item() < before


def test_lp_ft_keeps_the_probe_and_then_learns_from_pairs(quick, tmp_path, caplog):
    caplog.set_level("INFO")
    words = [word for word in FEW if not word.startswith("finetuning")]
    train(quick("finetuning=lp_ft", "finetuning.contrastive=true", "callbacks=blend", *words))
    assert "stage 2 of 2: the closed-form head is computed" in caplog.text
    assert (tmp_path / "run/checkpoints/probe.ckpt").is_file()


def test_a_run_that_stops_in_between_ends_as_if_it_had_not(quick, tmp_path):
    train(quick(*FEW, "scheduler=none"))
    whole = checkpoint.read(tmp_path / "run/checkpoints/last.ckpt")["state_dict"]
    (tmp_path / "run").rename(tmp_path / "whole")
    train(quick(*FEW, "scheduler=none", "trainer.max_epochs=1"))
    train(quick(*FEW, "scheduler=none", f"resume={tmp_path / 'run'}"))
    resumed = checkpoint.read(tmp_path / "run/checkpoints/last.ckpt")["state_dict"]
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=multilabel", "data.multi_label=true"], "needs one class per sample, but the samples have any number"),
        (["mixing=mixup"], "mixing gives two: use mixing=none"),
        (["data.batch_size=3"], "data.batch_size=3: finetuning=contrastive compares the samples of a batch"),
        (["callbacks=ema"], "callbacks=ema would average heads of different features"),
        (["head=mlp"], "a closed-form head must be one linear layer"),
        (["lr_find=true"], "lr_find=true does not work with finetuning=contrastive"),
    ],
)
def test_settings_that_do_not_fit_are_refused(words, message, quick):
    with pytest.raises(UsageError, match=message):
        train(quick(*FEW, *words))
