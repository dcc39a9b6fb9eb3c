"""The average of the weights, through stages, checkpoints and tests."""

import copy
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from headstart.callbacks.ema import EMA
from headstart.errors import UsageError
from headstart.tasks import checkpoint
from headstart.training.build import build_data, build_task, build_trainer


class Trace(Callback):
    """The head's weights after every step, the frozen stem's at the end of every stage."""

    def __init__(self):
        self.head, self.epochs = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, index):
        self.head.append(pl_module.head[-1].weight.detach().clone())
        self.epochs.append(trainer.current_epoch)


def fit(cfg):
    trainer, data = build_trainer(cfg), build_data(cfg)
    task, trace = build_task(cfg, data), Trace()
    before = copy.deepcopy(task.state_dict())
    trainer.callbacks.insert(0, trace)
    trainer.fit(task, data)
    return trainer, task, data, trace, before


def test_the_average_against_closed_form_anew_in_each_stage(quick):
    cfg = quick("callbacks=ema", "callbacks.ema.decay=0.9", "finetuning=unfreeze_at", "finetuning.epoch=1")
    _, _, _, trace, _ = fit(cfg)
    expected = None
    for place, weight in enumerate(trace.head):
        updates = place - trace.epochs.index(trace.epochs[place])  # one stage an epoch here
        decay = min(0.9, (1 + updates) / (10 + updates))
        expected = weight if updates == 0 else decay * expected + (1 - decay) * weight
    saved = checkpoint.read(Path(cfg.paths.run) / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(saved["state_dict"]["head.0.weight"], expected)
    assert torch.equal(saved["current_model_state"]["head.0.weight"], trace.head[-1])
    assert not torch.equal(expected, trace.head[-1])


def test_what_is_frozen_is_averaged_to_the_bit(quick):
    """`decay * x + (1 - decay) * x`, as torch's and Lightning's default do, is not x."""
    _, task, _, _, before = fit(quick("callbacks=ema", "finetuning=feature_extraction", "trainer.max_epochs=4"))
    after = task.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if key.startswith("backbone."))
    assert not torch.equal(after["head.0.weight"], before["head.0.weight"])
    values = torch.randn(1000)
    assert not torch.equal(0.999 * values + (1 - 0.999) * values, values)


def test_the_average_is_what_is_tested(quick):
    """Lightning's callback puts the weights back when `trainer.test(ckpt_path=...)` follows a fit."""
    cfg = quick("callbacks=ema", "callbacks.ema.decay=0.9")
    trainer, task, data, _, _ = fit(cfg)
    file = Path(cfg.paths.run) / "checkpoints" / "best.ckpt"
    trainer.test(task, datamodule=data, ckpt_path=file, verbose=False)
    saved = checkpoint.read(file)["state_dict"]
    assert all(torch.equal(value, saved[key]) for key, value in task.state_dict().items())


@pytest.mark.parametrize("decay", [-0.1, 1, 2])
def test_impossible_decay(decay):
    with pytest.raises(UsageError, match=f"callbacks.ema.decay={decay}"):
        EMA(decay)
