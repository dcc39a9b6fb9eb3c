"""The line of each epoch."""

import csv
import logging

import pytest
from pytorch_lightning.callbacks import Callback

from headstart.callbacks.epoch_lines import clock, table_lines
from headstart.training import run as training
from headstart.training.run import train

LR, TIME = "9.1e-4", "1:02:03"


def lines_of(caplog) -> list[str]:
    """Header and lines, without spaces at the ends."""
    return [each.message.strip() for each in caplog.records if each.name.endswith("epoch_lines")]


def test_each_epoch_has_a_line_with_its_numbers_and_the_best_so_far_is_marked(quick, tmp_path, caplog):
    caplog.set_level(logging.INFO, "headstart")
    train(quick("trainer.max_epochs=4", "optimizer.lr=0.01", "finetuning=full"))
    header, *lines = lines_of(caplog)
    assert header.split("  ")[0] == "epoch"
    columns = ["epoch", "train loss", "train acc", "val loss", "val acc", "lr", "time", "left"]
    assert [name.strip() for name in header.split("  ") if name.strip()] == columns
    assert [line.split()[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    with (tmp_path / "run/csv/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    scores = [float(row["val/acc"]) for row in rows if row["val/acc"]]
    assert [line.split()[4] for line in lines] == [f"{score:.4f}" for score in scores]
    assert [line.split()[2] for line in lines] == [f"{float(r['train/acc']):.4f}" for r in rows if r["train/acc"]]
    bests = [score > max(scores[:epoch], default=-1) for epoch, score in enumerate(scores)]
    assert [line.endswith("best") for line in lines] == bests
    assert lines[-1].split()[7] == "0:00", "nothing is left"


class Stopped(Callback):
    """Stops a run behind an epoch, as if it had been killed."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_a_resumed_run_repeats_no_line_and_remembers_the_best(quick, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "headstart")
    words = ("trainer.max_epochs=4", "optimizer.lr=0.01", "finetuning=full")
    build = training.build_trainer

    def with_stop(*arguments):
        trainer = build(*arguments)
        trainer.callbacks.insert(0, Stopped(2))
        return trainer

    monkeypatch.setattr(training, "build_trainer", with_stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(quick(*words))
    monkeypatch.undo()
    assert len(lines_of(caplog)) == 3
    caplog.clear()
    train(quick(*words, f"resume={tmp_path / 'run'}"))
    _, *lines = lines_of(caplog)
    assert [line.split()[0] for line in lines] == ["3/4", "4/4"]
    with (tmp_path / "run/csv/metrics.csv").open() as stream:
        scores = [float(row["val/acc"]) for row in csv.DictReader(stream) if row["val/acc"]]
    assert [line.endswith("best") for line in lines] == [scores[2] > max(scores[:2]), scores[3] > max(scores[:3])]


def test_a_run_with_a_closed_form_head_has_its_line_too(quick, caplog):
    caplog.set_level(logging.INFO, "headstart")
    train(quick("finetuning=probe"))
    _, line = lines_of(caplog)
    assert (line.split()[0], line.split()[5]) == ("1/2", "-"), "no learning rate"
    messages = [record.message.strip() for record in caplog.records]
    assert any(message.startswith("closed-form head: fitting it to the features of") for message in messages)
    ends = "the closed-form head is computed, nothing else is trained: the run ends"
    assert messages.index(line) < messages.index(ends)


@pytest.mark.parametrize("score", ["acc", "acc_macro"])
@pytest.mark.parametrize("epoch", ["16/16", "100/100"])
def test_a_line_fits_into_80_columns(score, epoch):
    cells = {"epoch": epoch, "train loss": "0.1234", "train acc": "0.1234", "val loss": "0.1234", f"val {score}": "1.0"}
    lines = table_lines(cells | {"lr": LR, "time": TIME, "left": TIME}, is_best=True)
    assert max(map(len, lines)) <= 80
    assert len(lines[0]) == len(lines[1].removesuffix("best").rstrip())


@pytest.mark.parametrize(("seconds", "shown"), [(None, ""), (0.4, "0:00"), (250, "4:10"), (3723, "1:02:03")])
def test_times(seconds, shown):
    assert clock(seconds) == shown
