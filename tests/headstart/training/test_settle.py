"""The config of a run is completed once."""

from pathlib import Path

import pytest

from headstart.errors import UsageError
from headstart.tasks import checkpoint
from headstart.training.run import train
from headstart.training.settle import refuse_other_length


def test_another_length_is_refused_if_the_schedule_spans_the_run(quick, monkeypatch):
    cfg = quick("scheduler=onecycle", "trainer.max_epochs=1", "test=false")
    train(cfg)
    last = Path(cfg.paths.run) / "checkpoints/last.ckpt"
    longer = cfg.copy()
    longer.trainer.max_epochs = 2
    with pytest.raises(UsageError, match=r"trainer.max_epochs=2: .* planned for max_epochs=1"):
        refuse_other_length(longer, last)
    monkeypatch.setattr(checkpoint, "read", lambda path: pytest.fail("all weights are read"))
    refuse_other_length(cfg, last)
