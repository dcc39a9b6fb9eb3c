"""Histograms of what learns, read back as TensorBoard reads them."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from headstart.callbacks.histograms import Histograms
from headstart.errors import UsageError
from headstart.training.run import train

WORDS = ["callbacks=histograms", "test=false", "finetuning=feature_extraction", "~callbacks.dashboard"]


def test_what_learns_has_a_histogram_an_epoch(quick, tmp_path):
    train(quick(*WORDS, "logger=tensorboard", "trainer.max_epochs=3", "callbacks.histograms.every=2"))
    events = EventAccumulator(str(next((tmp_path / "run").rglob("events.*")).parent), {"histograms": 0}).Reload()
    assert set(events.Tags()["histograms"]) == {
        f"{kind}/head.{name}" for kind in ("weights", "gradients") for name in ("0.weight", "0.bias")
    }
    assert len(events.Histograms("weights/head.0.weight")) == 2  # of the epochs 1 and 3


def test_there_must_be_a_tensorboard(quick):
    with pytest.raises(UsageError, match="use logger=tensorboard"):
        train(quick(*WORDS, "logger=csv"))
    with pytest.raises(UsageError, match="every=0"):
        Histograms(every=0)
