"""The closed-form head in whole runs."""

import json
import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import Callback

from headstart.callbacks.closed_form_head import ClosedFormHead, last_layer
from headstart.errors import UsageError
from headstart.heads.logistic_regression import solve
from headstart.heads.mlp import MLPHead
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.run import train
from headstart.training.settle import checkpoint_to_resume


class Rates(Callback):
    """Notes the head's rate of every step that is taken."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
            self.rates.append(optimizer.param_groups[-1]["lr"])


def run(cfg, *callbacks):
    point = checkpoint_to_resume(cfg)
    trainer, data = build_trainer(cfg, point), build_data(cfg)
    task = build_task(cfg, data, point)
    trainer.callbacks[1:1] = callbacks
    trainer.fit(task, data, ckpt_path=point, weights_only=True)
    return trainer, task, data


def expected(data, task):
    """The solution on the backbone's own features, computed without any of the machinery."""
    backbone = task.backbone.eval()
    with torch.no_grad():
        features = torch.cat([backbone(batch) for batch in data.inputs("train", range(data.num_samples["train"]))])
    return solve(features, data.targets("train", range(len(features))), task.objective.loss, len(task.classes))


@pytest.mark.parametrize("overrides", [["cache=off"], ["augmentation=flip_crop"], ["data.num_workers=1"]], ids=str)
def test_a_probe_is_the_logistic_regression_on_plain_features(overrides, quick):
    before = instantiate(quick().model).state_dict()
    trainer, task, data = run(quick("finetuning=probe", "trainer.max_epochs=5", *overrides))
    solution = expected(data, task)
    assert torch.allclose(task.head[0].weight, solution.weight, atol=2e-2 * float(solution.weight.abs().max()))
    for name, value in task.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert trainer.current_epoch == 1, "one epoch is all it needs"
    assert not trainer.optimizers[0].state, "nothing took a step"


def test_its_metrics_are_kept_like_any_epochs(quick):
    cfg = quick("finetuning=probe")
    result = train(cfg)
    run_ = Path(cfg.paths.run)
    assert {"val/acc", "test/acc"} <= result.metrics.keys()
    assert json.loads((run_ / "metrics.json").read_text())["score"] == result.score
    saved = checkpoint.read(run_ / "checkpoints" / "best.ckpt")
    assert saved["metrics"]["val/acc"] == result.metrics["val/acc"]
    task, _ = checkpoint.load_task(run_ / "checkpoints" / "best.ckpt")
    data = build_data(cfg)
    data.connect(task.backbone.preprocess, task.backbone.preprocess)
    solution = expected(data, task)
    assert torch.allclose(task.head[0].weight, solution.weight, atol=2e-2 * float(solution.weight.abs().max()))


def test_what_follows_has_the_whole_schedule(quick):
    options = ["scheduler=linear", "optimizer=sgd", "data.num_samples=64", "data.batch_size=16"]
    full, solved = Rates(), Rates()
    run(quick("finetuning=full", "trainer.max_epochs=3", *options), full)
    run(quick("finetuning=lp_ft", "trainer.max_epochs=4", *options), solved)
    assert len(full.rates) > 3
    assert solved.rates == full.rates


def test_a_run_limited_by_steps_has_a_schedule_too(quick):
    options = [
        "scheduler=linear",
        "optimizer=sgd",
        "data.num_samples=64",
        "data.batch_size=16",
        "trainer.max_epochs=-1",
    ]
    full, solved = Rates(), Rates()
    run(quick("finetuning=full", "+trainer.max_steps=6", *options), full)
    run(quick("finetuning=lp_ft", "+trainer.max_steps=9", *options), solved)
    assert len(full.rates) == 6
    assert solved.rates == full.rates


def test_lp_ft_starts_from_the_solution_and_goes_on(quick):
    class Heads(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            heads.append(pl_module.head[0].weight.clone())
            stems.append(next(pl_module.backbone.parameters()).clone())

    heads, stems = [], []
    cfg = quick("finetuning=lp_ft", "trainer.max_epochs=3")
    *_, data = run(cfg, Heads())
    fresh = build_task(cfg, data)
    solution = expected(data, fresh)
    assert torch.allclose(heads[0], solution.weight, atol=2e-2 * float(solution.weight.abs().max()))
    assert torch.equal(stems[0], next(fresh.backbone.parameters()))
    assert not torch.equal(heads[1], heads[0])
    assert not torch.equal(stems[1], stems[0])


def test_the_average_of_the_weights_begins_with_the_solution(quick):
    trainer, task, _ = run(quick("finetuning=probe", "callbacks=ema"))
    (ema,) = (c for c in trainer.callbacks if type(c).__name__ == "EMA")
    assert torch.equal(ema._average_model.module.head[0].weight, task.head[0].weight)


def test_rare_classes_count_as_much_as_others_with_a_balanced_sampler(quick):
    heads = []
    for words in (["data.class_weights=balanced"], ["data.sampler=balanced"]):
        _, task, _ = run(quick("finetuning=probe", "data.num_samples=60", "data.shots_per_class=null", *words))
        heads.append(task.head[0].weight.detach())
    assert torch.allclose(*heads, atol=1e-4)


def test_a_finished_probe_that_is_resumed_stays_finished(quick, caplog):
    cfg = quick("finetuning=probe", "trainer.max_epochs=3")
    train(cfg)
    before = checkpoint.read(Path(cfg.paths.run) / "checkpoints" / "last.ckpt")
    cfg.resume = cfg.paths.run
    with caplog.at_level(logging.INFO):
        train(cfg)
    after = checkpoint.read(Path(cfg.paths.run) / "checkpoints" / "last.ckpt")
    assert after["epoch"] == before["epoch"]
    assert torch.equal(after["state_dict"]["head.0.weight"], before["state_dict"]["head.0.weight"])


def test_a_few_batches_are_enough_to_try(quick):
    train(quick("finetuning=probe", "trainer.fast_dev_run=true"))
    train(quick("finetuning=lp_ft", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"))


def test_without_validation(quick):
    trainer, *_ = run(quick("finetuning=probe", "trainer.limit_val_batches=0", "trainer.max_epochs=3"))
    assert trainer.current_epoch == 1


def test_a_head_with_hidden_layers_is_refused_before_anything_is_computed(quick, monkeypatch):
    monkeypatch.setattr(ClosedFormHead, "_solve", None)
    with pytest.raises(
        UsageError, match="one linear layer, but this MLPHead has Linear, ReLU, Linear: use head=linear"
    ):
        train(quick("finetuning=lp_ft", "head=mlp"))
    train(quick("finetuning=lp_ft", "finetuning.solve_head=false", "head=mlp"))
    with pytest.raises(UsageError):
        last_layer(MLPHead(4, 2, hidden_sizes=[3]))


def test_a_loss_that_is_not_convex_is_refused_before_anything_is_computed(quick, monkeypatch):
    monkeypatch.setattr(ClosedFormHead, "_solve", None)
    for strategy in ("lp_ft", "probe"):
        with pytest.raises(UsageError, match="focal_gamma=2: a closed-form head needs the cross-entropy"):
            train(quick(f"finetuning={strategy}", "task.objective.focal_gamma=2"))
    train(quick("finetuning=lp_ft", "finetuning.solve_head=false", "task.objective.focal_gamma=2"))


def test_random_weights_have_no_features_worth_a_probe(quick):
    trainer, *_ = run(quick("finetuning=probe", "model.weights=null"))
    assert trainer.current_epoch == 2, "everything learns"
    assert trainer.optimizers[0].state


class Interrupt(Callback):
    """Sends the process a signal while a step is under way."""

    def __init__(self, epoch, batch):
        self.place = epoch, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.place == (trainer.current_epoch, batch_idx):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("place", [(0, 1), (0, 3), (1, 1)], ids=["inside", "behind", "in the next stage"])
def test_what_is_solved_is_not_solved_again_when_a_run_goes_on(place, quick, tmp_path, monkeypatch):
    words = ["finetuning=lp_ft", "augmentation=flip_crop", "callbacks=blend", "cache=off"]
    cfg = quick(*words, "data.num_samples=96")
    _, whole, _ = run(cfg)
    cfg.paths.run = str(tmp_path / "interrupted")
    with pytest.raises(SystemExit):
        run(cfg, Interrupt(*place))
    monkeypatch.setattr(ClosedFormHead, "_solve", None)
    cfg.resume = cfg.paths.run
    _, resumed, _ = run(cfg)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
