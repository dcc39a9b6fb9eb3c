"""Stages in whole runs."""

import copy
import logging
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from headstart.errors import UsageError
from headstart.finetuning.base import StagedFinetuning
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.run import train
from headstart.training.settle import checkpoint_to_resume, settle_machine


class Recorder(Callback):
    """Notes at the first step of each epoch what learns, and which modules are in train mode."""

    def __init__(self):
        self.learning, self.stages = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, index):
        if index == 0:
            self.learning.append([g.name for g in pl_module.layer_groups if not g.frozen])
            modes = {id(m) for m in pl_module.modules() if m.training}
            assert not modes & {id(m) for m in pl_module.kept_in_eval}, "what is frozen is in train mode"


def record(cfg, *callbacks):
    """Trains (on) as the config says, and notes what learns when."""
    point = checkpoint_to_resume(cfg)
    trainer, data = build_trainer(cfg, point), build_data(cfg)
    task, recorder = build_task(cfg, data, point), Recorder()
    trainer.callbacks[1:1] = [recorder, *callbacks]
    trainer.fit(task, data, ckpt_path=point, weights_only=True)
    return recorder, trainer, task, data


TINY = ["stem", "stage1", "stage2", "stage3"]


def test_unfreeze_at(quick):
    recorder, *_ = record(quick("finetuning=unfreeze_at", "finetuning.epoch=2", "trainer.max_epochs=4"))
    assert recorder.learning == [[], [], TINY, TINY]


def test_gradual(quick):
    recorder, *_ = record(quick("finetuning=gradual", "finetuning.groups=2", "trainer.max_epochs=4"))
    assert recorder.learning == [[], TINY[2:], TINY, TINY]


def test_patience_starts_anew_in_each_stage_and_the_last_one_ends_the_run(quick, monkeypatch):
    scores = [0.5, 0.4, 0.4, 0.1, 0.2, 0.15, 0.15, 0.9]
    cfg = quick(
        "finetuning=lp_ft",
        "finetuning.solve_head=false",
        "finetuning.head_patience=2",
        "finetuning.patience=2",
        "trainer.max_epochs=8",
    )
    by_epoch = property(lambda trainer: {"val/acc": torch.tensor(scores[trainer.current_epoch])})
    monkeypatch.setattr(pl.Trainer, "callback_metrics", by_epoch)
    recorder, trainer, *_ = record(cfg)
    # 0.5, then twice no better; the second stage counts from 0.1 up, whatever the first one reached
    assert recorder.learning == [[], [], [], TINY, TINY, TINY, TINY]
    assert trainer.current_epoch == 7
    assert trainer.checkpoint_callbacks[0].best_model_score == 0.5, "the best checkpoint is over the whole run"


@pytest.mark.parametrize(
    ("monitor", "scores", "goal", "epochs"),
    [("val/acc", [0.5, 0.8, 0.9, 0.9], 0.8, 2), ("val/loss", [0.5, 0.2, 0.1, 0.1], 0.15, 3)],
)
def test_a_goal_ends_the_run_in_whatever_stage(monitor, scores, goal, epochs, quick, monkeypatch, tmp_path):
    words = ["finetuning=unfreeze_at", f"finetuning.goal={goal}", f"monitor={monitor}", "trainer.max_epochs=4"]
    by_epoch = property(lambda trainer: {monitor: torch.tensor(scores[trainer.current_epoch])})
    monkeypatch.setattr(pl.Trainer, "callback_metrics", by_epoch)
    cfg = quick(*words)
    _, trainer, *_ = record(cfg)
    assert trainer.current_epoch == epochs
    cfg.resume = str(tmp_path / "run")
    _, resumed, *_ = record(cfg)
    assert resumed.current_epoch == epochs, "and does not go on when it is resumed"


def test_a_stage_that_never_begins_is_told_before_training(quick, caplog):
    with caplog.at_level(logging.WARNING):
        record(quick("finetuning=unfreeze_at", "finetuning.epoch=2", "trainer.max_epochs=2"))
    assert "stage 2 of 2 would begin with epoch 3, but trainer.max_epochs=2: the run ends before" in caplog.text


def test_patience_without_validation_is_refused(quick):
    with pytest.raises(UsageError, match=r"this run validates nothing: give the stage a length"):
        record(quick("finetuning=lp_ft", "finetuning.solve_head=false", "trainer.limit_val_batches=0"))


def test_bitfit_trains_norms_and_biases_only(quick):
    _, _, task, _ = record(quick("finetuning=bitfit", "trainer.max_epochs=1"))
    learning = {name for name, p in task.backbone.named_parameters() if p.requires_grad}
    assert learning
    assert learning == {name for name, p in task.backbone.named_parameters() if p.ndim <= 1}


def test_batch_norm_policy_per_stage(quick):
    cfg = quick("finetuning=unfreeze_at", "finetuning.epoch=1", "finetuning.batch_norm=[frozen,train]")
    _, _, task, _ = record(cfg)
    task.train()
    assert all(m.training for m in task.backbone.modules())


def test_scratch_is_random_and_all_learns(quick):
    cfg = quick("finetuning=scratch", "model.weights=letters", "trainer.max_epochs=1")
    settle_machine(cfg)
    recorder, _, task, _ = record(cfg)
    assert not task.backbone.pretrained
    assert recorder.learning == [TINY]
    assert set(task.lr_ratios.values()) == {1.0}


def test_what_learns_must_be_in_one_optimizer_group(quick):
    """Lightning's `unfreeze_and_add_param_group(train_bn=False)` leaves BatchNorm's affine parameters learning but in
    no optimizer; here that is an error, at every stage."""
    cfg = quick("trainer.max_epochs=1")
    trainer, data = build_trainer(cfg), build_data(cfg)
    task = build_task(cfg, data)
    configure = task.configure_optimizers

    def without_norms():
        made = configure()
        optimizer = made["optimizer"] if isinstance(made, dict) else made
        optimizer.param_groups = [g for g in optimizer.param_groups if g["name"] != "stage2"]
        return made

    task.configure_optimizers = without_norms
    with pytest.raises(AssertionError, match=r"must be in one optimizer group.*stage2.*\(0\)"):
        trainer.fit(task, data)


def test_validate_test_and_predict_change_nothing(quick):
    """Lightning's callback freezes again in `trainer.test()`, because `setup` runs at every stage."""
    _, trainer, task, data = record(quick("finetuning=unfreeze_at", "finetuning.epoch=1"))
    (strategy,) = (c for c in trainer.callbacks if isinstance(c, StagedFinetuning))

    def settings():
        groups = trainer.optimizers[0].param_groups
        return copy.deepcopy([{key: value for key, value in group.items() if key != "params"} for group in groups])

    def everything():
        state = {k: v.clone() for k, v in task.state_dict().items()}
        learns = [p.requires_grad for p in task.parameters()]
        return state, learns, strategy.state_dict(), [id(m) for m in task.kept_in_eval]

    before, settings_before = everything(), settings()
    trainer.validate(task, data, verbose=False)
    trainer.test(task, data, verbose=False)
    trainer.predict(task, data.loader("val"))
    after = everything()
    assert all(torch.equal(after[0][k], v) for k, v in before[0].items())
    assert after[1:] == before[1:]
    task.train()
    assert not any(m.training for m in task.kept_in_eval)
    assert settings() == settings_before


class KilledError(RuntimeError):
    pass


class Killer(Callback):
    """Ends a run without ceremony at the start of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KilledError


@pytest.mark.parametrize("epoch", [1, 2])
def test_resuming_goes_on_in_the_right_stage(epoch, quick):
    """Lightning's callback freezes the backbone again in silence."""
    cfg = quick("finetuning=unfreeze_at", "finetuning.epoch=1", "trainer.max_epochs=3")
    with pytest.raises(KilledError):
        record(cfg, Killer(epoch))
    cfg.resume = cfg.paths.run
    recorder, *_ = record(cfg)
    assert recorder.learning == [TINY] * (3 - epoch)


def test_the_table_of_every_stage_in_terminal_and_tensorboard(quick, capfd):
    cfg = quick("finetuning=unfreeze_at", "finetuning.epoch=1", "test=false")
    train(cfg)
    shown = capfd.readouterr().err
    assert "stage 1 of 2" in shown
    assert "stage 2 of 2" in shown
    assert "frozen prefix: 4 of 4" in shown
    assert "frozen prefix: 0 of 4" in shown
    events = EventAccumulator(str(Path(cfg.paths.run) / "tensorboard")).Reload()
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("stages/text_summary")]
    assert [("stage 1 of 2" in text, "stage 2 of 2" in text) for text in texts] == [(True, False), (False, True)]
    assert "| group | parameters | trained | learning rate | BatchNorm |" in texts[0]
    assert [event.value for event in events.Scalars("stage")] == [1.0, 2.0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_clipping_accumulation_and_bf16_through_an_unfreeze(quick, accumulate):
    cfg = quick(
        "finetuning=unfreeze_at", "finetuning.epoch=1", "trainer.gradient_clip_val=0.5",
        f"trainer.accumulate_grad_batches={accumulate}", "trainer.precision=bf16-mixed",
    )  # fmt: skip
    recorder, trainer, task, _ = record(cfg)
    assert recorder.learning == [[], TINY]
    assert trainer.global_step == 2 * -(-trainer.num_training_batches // accumulate)
    assert all(p.isfinite().all() for p in task.parameters())


@pytest.mark.gpu
def test_fp16_with_scaler_through_an_unfreeze(quick):
    cfg = quick("finetuning=unfreeze_at", "finetuning.epoch=1", "trainer=gpu", "trainer.precision=16-mixed")
    recorder, _, task, _ = record(cfg)
    assert recorder.learning == [[], TINY]
    assert all(p.isfinite().all() for p in task.parameters())


def test_every_strategy_file_is_a_strategy(composed):
    from headstart.cli.conf_files import choices_by_group

    for name in choices_by_group()["finetuning"]:
        assert isinstance(instantiate(composed(f"finetuning={name}").finetuning), StagedFinetuning), name
