"""The learning rate range test, and that it leaves nothing behind but a rate."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from headstart.errors import UsageError
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.lr_find import RangeTest, longest_descent, smoothed
from headstart.training.run import train


def test_the_valley_is_the_long_way_down():
    assert longest_descent([5.0, 4.0, 3.0, 9.0, 2.0, 1.0, 8.0]) == (0, 5), "over the bump at 9"
    assert longest_descent([1.0, 2.0, 3.0, 2.5, 2.0, 1.5, 4.0]) == (2, 5)
    assert longest_descent([1.0, 2.0, 3.0]) in ((0, 0), (1, 1), (2, 2))


def test_smoothing_does_not_begin_at_zero():
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([1.0, 3.0]) == pytest.approx([1.0, (0.09 * 1 + 0.1 * 3) / 0.19])


def test_the_suggestion_lies_on_the_way_down():
    test = RangeTest()
    test.learning_rates = [10.0**power for power in range(-6, 2)]
    test.losses = [3.0, 3.0, 2.9, 2.0, 1.0, 0.5, 20.0, 90.0]
    assert 1e-5 < test.suggestion() < 1e-1
    test.losses = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    with pytest.raises(UsageError, match=r"never fell .* give optimizer.lr"):
        test.suggestion()


@pytest.mark.parametrize("batches", [1, 3], ids="batches a step: {}".format)
def test_rates_rise_exponentially_and_in_proportion(batches, quick):
    cfg = quick("task.backbone_lr_ratio=0.25", "trainer.max_epochs=-1", "trainer.limit_train_batches=null")
    cfg.update({"scheduler": None, "callbacks": {}, "logger": {}})
    cfg.trainer.accumulate_grad_batches = batches
    test, seen = RangeTest(steps=5, lowest=1e-5, highest=1e-1), []
    trainer, data = build_trainer(cfg), build_data(cfg)
    trainer.callbacks.append(test)
    task = build_task(cfg, data)
    losses, loss_of = [], task.objective.loss
    task.objective.loss = lambda *given: (value := loss_of(*given), task.training and losses.append(value.item()))[0]
    step = task.optimizer_step
    task.optimizer_step = lambda *given, **named: (
        seen.append({group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}),
        step(*given, **named),
    )
    trainer.fit(task, data)
    assert [rates["head"] for rates in seen] == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    assert [rates["stage3"] for rates in seen] == pytest.approx([0.25 * rates["head"] for rates in seen])
    assert len(test.losses) == 5
    assert all(map(math.isfinite, test.losses))
    assert test.losses[0] == pytest.approx(sum(losses[:batches]) / batches)


@pytest.mark.parametrize(
    "words",
    [
        ["+trainer.max_steps=3"],
        pytest.param(["finetuning=feature_extraction"], marks=pytest.mark.slow),
        pytest.param(["finetuning=unfreeze_at"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_it_leaves_no_trace(words, quick, tmp_path):
    words = [*words, "trainer.limit_train_batches=null", "trainer.max_epochs=3"]
    found = quick(*words, "lr_find=true", f"paths.run={tmp_path / 'found'}")
    train(found)
    rate = OmegaConf.load(tmp_path / "found/config.yaml").optimizer.lr
    assert rate != quick().optimizer.lr
    assert (tmp_path / "found/lr_find.png").stat().st_size > 5000
    train(quick(*words, f"optimizer.lr={rate}", f"paths.run={tmp_path / 'given'}"))
    one, other = (checkpoint.read(tmp_path / name / "checkpoints/last.ckpt") for name in ("found", "given"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert one["metrics"] == other["metrics"]
    kept = {path.name for path in (tmp_path / "found").iterdir()} - {
        path.name for path in (tmp_path / "given").iterdir()
    }
    assert kept == {"lr_find.png"}


def test_a_resumed_run_keeps_its_rate(quick, tmp_path, monkeypatch):
    words = ["lr_find=true", "trainer.limit_train_batches=null", f"paths.run={tmp_path / 'run'}"]
    train(quick(*words, "trainer.max_epochs=1", "scheduler=none"))
    cfg = OmegaConf.load(tmp_path / "run/config.yaml")
    cfg.update({"resume": str(tmp_path / "run")})
    cfg.trainer.max_epochs = 2
    monkeypatch.setattr(RangeTest, "setup", lambda *_: pytest.fail("searched again"))
    train(cfg)
    state = checkpoint.read(Path(tmp_path / "run/checkpoints/last.ckpt"))["optimizer_states"][0]
    assert state["param_groups"][-1]["lr"] == cfg.optimizer.lr


@pytest.mark.parametrize("strategy", ["probe", "lp_ft"])
def test_a_computed_head_has_nothing_to_find(strategy, quick):
    with pytest.raises(UsageError, match=r"Give optimizer.lr=<number>"):
        train(quick("lr_find=true", f"finetuning={strategy}"))
