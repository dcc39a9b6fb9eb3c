"""A run that diverges stops, says so, and keeps what it had."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from headstart.callbacks import divergence
from headstart.errors import Failure
from headstart.evaluation.evaluate import evaluate
from headstart.runs.directory import Run
from headstart.tasks import checkpoint
from headstart.training import build
from headstart.training.run import train


class Spoil(Callback):
    """Makes the loss of a step NaN or infinite, or the weights after it NaN."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_train_batch_start(self, trainer, task, batch, index):
        if trainer.global_step == self.step and self.what == "loss":
            with torch.no_grad():
                task.head[-1].bias.fill_(math.inf)

    def on_train_batch_end(self, trainer, task, outputs, batch, index):
        if trainer.global_step == self.step and self.what == "weights":
            with torch.no_grad():
                task.head[-1].bias.fill_(math.nan)


@pytest.fixture
def spoiled(monkeypatch):
    def spoil(step, what):
        callbacks = build._callbacks
        monkeypatch.setattr(build, "_callbacks", lambda cfg: [Spoil(step, what), *callbacks(cfg)])

    return spoil


def test_a_learning_rate_that_is_far_too_high(quick, tmp_path):
    with pytest.raises(
        Failure, match=r"diverged: by step \d+ .* loss is NaN or infinite\. Try a lower learning rate, such as "
    ):
        train(quick("finetuning=full", "optimizer=sgd", "optimizer.lr=1e6", "trainer.max_epochs=30"))
    assert not (tmp_path / "run/metrics.json").exists()
    for file in Run(tmp_path / "run").checkpoints:
        assert all(value.isfinite().all() for value in checkpoint.read(file)["state_dict"].values())


@pytest.mark.parametrize("of_another", [False, True])
def test_the_loss_of_another_process_counts_too(of_another):
    """`test_ddp.py` tries it with two processes."""
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: of_another or decision)
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}])
    trainer = SimpleNamespace(
        strategy=strategy, optimizers=[optimizer], precision="32-true", global_step=20, current_epoch=0,
        checkpoint_callbacks=[], num_training_batches=20, should_stop=False, local_rank=0,
    )  # fmt: skip
    task = SimpleNamespace(train_loss=SimpleNamespace(mean_value=torch.tensor(1.0)))
    with pytest.raises(Failure, match="by step 20") if of_another else nullcontext():
        divergence.Divergence().on_train_batch_end(trainer, task, None, None, 19)


@pytest.mark.parametrize(
    ("every", "check_val_every_n_epoch", "batch", "batch_of_run", "expected"),
    [
        (3, 1, 2, 12, True),
        (3, 1, 4, 14, False),  # the count begins again in each epoch
        (3, None, 4, 14, True),
        (3, None, 2, 12, False),
        (math.inf, 1, 2, 12, False),  # data of unknown length: only at the end of the epoch
        (0, 1, 2, 12, False),
    ],
)
def test_the_batches_after_which_lightning_validates(every, check_val_every_n_epoch, batch, batch_of_run, expected):
    trainer = SimpleNamespace(
        val_check_batch=every,
        check_val_every_n_epoch=check_val_every_n_epoch,
        fit_loop=SimpleNamespace(total_batch_idx=batch_of_run),
    )
    assert divergence._validates_now(trainer, batch) == expected


@pytest.mark.parametrize("what", ["loss", "weights"])
@pytest.mark.parametrize("overrides", [[], ["+trainer.val_check_interval=0.5"]], ids=["", "validated twice an epoch"])
def test_the_best_model_before_it_is_kept_and_can_be_used(what, overrides, quick, spoiled, tmp_path):
    """In the third epoch of four; the weights change after the last step, so only the validation can show it."""
    steps = 4
    spoiled(3 * steps if what == "weights" else 2 * steps + 1, what)
    with pytest.raises(Failure, match=r"best\.ckpt holds the best model before that \(val/acc"):
        train(quick("finetuning=full", "trainer.max_epochs=4", *overrides))
    run = Run(tmp_path / "run")
    best = run.checkpoints_folder / "best.ckpt"
    assert checkpoint.read(best)["epoch"] < 2
    assert all(value.isfinite().all() for value in checkpoint.read(best)["state_dict"].values())
    from hydra import compose, initialize_config_dir

    from headstart.cli.conf_files import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        metrics = evaluate(compose("evaluate", [f"run={run.folder}", "split=val"]), best)
    assert 0 <= metrics["val/acc"] <= 1
