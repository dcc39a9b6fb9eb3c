import csv
import sys

import pytest

from headstart import callbacks, display
from headstart.cli.check import check_config
from headstart.display.curves import History, draw, read
from headstart.errors import UsageError
from headstart.training.run import train


def written(path, *rows):
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(stream, sorted({key for row in rows for key in row}))
        table.writeheader()
        table.writerows(rows)
    return path


def test_a_run_in_stages_leaves_a_picture_of_all_its_epochs(quick, tmp_path):
    train(quick("callbacks=curves", "finetuning=unfreeze_at", "finetuning.epoch=1", "trainer.max_epochs=3"))
    assert (tmp_path / "run/curves.png").read_bytes().startswith(b"\x89PNG")
    history = read(tmp_path / "run/csv/metrics.csv")
    assert history.stages == {1: 0, 2: 1}
    with (tmp_path / "run/csv/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert set(history.points) == {"train/acc", "val/acc", "train/loss", "val/loss"}
    for metric, points in history.points.items():
        assert points == list(zip([1, 2, 3], [float(row[metric]) for row in rows if row[metric]], strict=True))


def test_several_validations_are_spread_over_their_epoch(tmp_path):
    rows = [{"epoch": 0, "val/acc": 0.2}, {"epoch": 0, "val/acc": 0.4}, {"epoch": 0, "train/acc": 0.3}]
    history = read(written(tmp_path / "m.csv", *rows, {"epoch": 1, "val/acc": 0.6}, {"step": 9, "lr/head": 1}))
    assert history.points == {"train/acc": [(1.0, 0.3)], "val/acc": [(0.5, 0.2), (1.0, 0.4), (2.0, 0.6)]}
    assert history.stages == {}


def test_what_is_drawn_is_what_was_read():
    history = History({"train/acc": [(1, 0.5), (2, 0.7)], "val/acc": [(1, 0.4), (2, 0.6)], "val/loss": [(2, 3.0)]})
    accuracy, loss = draw(history).axes
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in accuracy.lines}
    assert drawn == {"train": [(1, 0.5), (2, 0.7)], "val": [(1, 0.4), (2, 0.6)]}
    assert [line.get_label() for line in loss.lines] == ["val"]
    history.stages = {1: 0, 2: 1}
    dashed = [line.get_xdata()[0] for line in draw(history).axes[0].lines if line.get_linestyle() == "--"]
    assert dashed == [0, 1]


def test_a_run_without_a_table_is_refused_before_it_trains(quick, tmp_path):
    with pytest.raises(UsageError, match="which this run does not write: add logger=csv"):
        train(quick("callbacks=curves", "logger=tensorboard"))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_trial_of_one_batch_draws_nothing(quick, tmp_path):
    train(quick("callbacks=curves", "debug=fast"))
    assert not (tmp_path / "run/curves.png").exists()


def test_matplotlib_missing_is_told_by_name(quick, monkeypatch):
    for module in ("headstart.callbacks.curves", "headstart.display.curves"):  # imported again, as in a new process
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr(callbacks, "curves", raising=False)
    monkeypatch.delattr(display, "curves", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"callbacks.curves._target_=\S+ cannot be imported(.|\n)*matplotlib"):
        check_config(quick("callbacks=curves"))
