import logging
import os
import signal
from itertools import count
from types import SimpleNamespace

import pytest
from pytorch_lightning.callbacks import Callback, Timer, timer

from headstart.callbacks import time_limit
from headstart.callbacks.epoch_lines import EpochLines
from headstart.callbacks.time_limit import TimeLimit, fitting
from headstart.errors import duration_in_words
from headstart.training import run
from headstart.training.build import build_trainer
from headstart.training.run import train


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (2, "2 s"), (42.4, "42 s"), (90, "1 min 30 s"), (600, "10 min"), (5400, "1 h 30 min"),
     (3600, "1 h"), (661, "11 min")],
)  # fmt: skip
def test_a_time_in_words(seconds, words):
    assert duration_in_words(seconds) == words


@pytest.mark.parametrize(
    ("epoch", "left", "done", "max_epochs", "words"),
    [
        (42, 558, 1, 30, "an epoch takes 42 s: only about 15 of 30 epochs fit into trainer.max_time"),
        (42, 558, 1, 15, "an epoch takes 42 s: all 15 epochs fit into trainer.max_time"),
        (42, 558, 1, -1, "an epoch takes 42 s: about 15 epochs fit into trainer.max_time"),
    ],
)
def test_how_many_epochs_fit(epoch, left, done, max_epochs, words):
    assert fitting(epoch, left, done, max_epochs) == words


def test_a_resumed_run_counts_the_time_before():
    before, after = Timer("00:00:10:00"), TimeLimit("00:00:10:00")
    before._offset = 500
    assert after.state_key == before.state_key
    after.load_state_dict(before.state_dict())
    assert after.time_remaining() == 100


def test_a_run_says_when_it_will_end_and_why_it_ended(quick, monkeypatch, caplog):
    minutes = count()  # the clock of these two files goes on by a minute with each look at it
    clock = SimpleNamespace(monotonic=lambda: 60 * next(minutes))
    monkeypatch.setattr(timer, "time", clock)
    monkeypatch.setattr(time_limit, "time", clock)
    with caplog.at_level(logging.INFO, time_limit.__name__):
        train(quick("trainer.max_time=1h", "trainer.max_epochs=100", "finetuning.patience=null", "test=false"))
    begins, fits, ends = [record.message for record in caplog.records if record.name == time_limit.__name__]
    assert begins.startswith("trainer.max_time: after 1 h")
    assert "of 100 epochs fit into trainer.max_time" in fits
    assert ends.startswith("1 h are over (trainer.max_time): the training ends after epoch ")
    assert "of 100. The learning rates would have fallen further" in ends


def test_no_time_is_left_when_it_is_over():
    """Also if the line of the epoch is written before the limit ends the training."""
    limit = TimeLimit("00:00:10:00")
    limit.load_state_dict({"time_elapsed": {"train": 700}})
    trainer = SimpleNamespace(should_stop=False, callbacks=[limit], max_epochs=-1)
    assert EpochLines()._left(trainer) == 0


def test_an_epoch_that_is_resumed_in_its_middle_is_no_measure(quick, caplog):
    cfg = quick("trainer.max_time=1h", "trainer.max_epochs=3", "finetuning=full", "test=false")

    class Interrupt(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "build_trainer", lambda *given: with_callback(build_trainer(*given), Interrupt()))
        with pytest.raises(SystemExit):
            train(cfg)
    cfg.resume = cfg.paths.run
    with caplog.at_level(logging.INFO, time_limit.__name__):
        train(cfg)
    assert "epochs fit into trainer.max_time" in caplog.text


def with_callback(trainer, callback):
    trainer.callbacks.append(callback)
    return trainer
