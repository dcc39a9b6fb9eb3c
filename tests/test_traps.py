"""Traps of the libraries underneath, each with a test that fails on the naive way. The others have theirs elsewhere:

1 frozen BatchNorm          headstart/finetuning/test_finetuning.py: test_frozen_means_inference_mode
2 norms in no optimizer     headstart/finetuning/test_stages.py: test_what_learns_must_be_in_one_optimizer_group
3 equal by value            headstart/optim/test_parameter_groups.py: test_every_parameter_is_in_exactly_one_named_group
4 groups added mid-run      headstart/optim/test_schedule.py
6 frozen again              headstart/finetuning/test_stages.py: test_resuming..., test_validate_test_and_predict...
7 DDP                       test_ddp.py
8 pickles in checkpoints    headstart/tasks/test_checkpoint.py
10 micro or macro           headstart/tasks/test_objectives.py
12 versions                 pyproject.toml: the extra `optuna`
"""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BackboneFinetuning, Callback
from torch import nn

from headstart.errors import UsageError
from headstart.training.build import build_data, build_task, build_trainer
from headstart.training.run import train


class Rates(Callback):
    """The rates of every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, pl_module, batch, index):
        self.steps.append(tuple(group["lr"] for group in trainer.optimizers[0].param_groups))


class Naive(pl.LightningModule):
    """What Lightning's own finetuning callback expects: a `backbone`, and an optimizer over what learns at first."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

    def training_step(self, batch, _):
        return self.head(self.backbone(batch)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


def test_5_a_callback_never_writes_a_rate(quick):
    """Lightning's `BackboneFinetuning` doubles the backbone's rate in every epoch and overwrites the scheduler's."""
    cfg = quick("finetuning=unfreeze_at", "finetuning.epoch=1", "scheduler=none", "trainer.max_epochs=4")
    trainer, data, ours = build_trainer(cfg), build_data(cfg), Rates()
    trainer.callbacks.append(ours)
    trainer.fit(build_task(cfg, data), data)
    assert len(set(ours.steps)) == 1

    naive, writing = Rates(), BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=4, callbacks=[writing, naive], enable_model_summary=False, **options)
    trainer.fit(Naive(), torch.utils.data.DataLoader(torch.ones(4, 2)))
    backbone = [step[1] for step in naive.steps if len(step) > 1]
    assert backbone[0] * 4 == pytest.approx(backbone[-1])


def test_8_compiling_does_not_rename_weights(quick):
    """`self.net = torch.compile(net)` puts `_orig_mod.` into the names, and no other program can load the file."""
    task = build_task(quick(), build_data(quick()))
    names = list(task.state_dict())
    task.backbone.compile()
    assert list(task.state_dict()) == names
    task.backbone.stage1 = torch.compile(task.backbone.stage1)
    assert list(task.state_dict()) != names
    with pytest.raises(UsageError, match="Compile in place"):
        task.backbone.layer_groups()


def test_9_a_fast_dev_run_tests_and_the_best_epoch_is_reported(quick, monkeypatch):
    """`ckpt_path="best"` is refused under fast_dev_run, and `callback_metrics` hold the last epoch's metrics."""
    assert "test/acc" in train(quick("trainer.fast_dev_run=true")).metrics
    cfg = quick("trainer.max_epochs=2", "test=false")
    worse = property(lambda trainer: {"val/acc": torch.tensor((0.9, 0.5)[min(trainer.current_epoch, 1)])})
    monkeypatch.setattr(pl.Trainer, "callback_metrics", worse)
    assert train(cfg).metrics["val/acc"] == pytest.approx(0.9)
    last = torch.load(Path(cfg.paths.run) / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["metrics"]["val/acc"] == pytest.approx(0.5)


def test_11_convolutions_see_channels_last(quick):
    """In torch's default layout the same network takes several times as long on CPUs and tensor cores."""
    backbone = build_task(quick(), build_data(quick())).backbone
    seen = []
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    backbone(torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not seen[0].is_contiguous()
