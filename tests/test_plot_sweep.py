"""`scripts/plot_sweep.py`, on made-up sweeps and on a small real one."""

import importlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from headstart.cli.conf_files import CONF
from headstart.errors import UsageError

PLOT = SimpleNamespace(**runpy.run_path(str(CONF.parent / "scripts" / "plot_sweep.py")))


def test_a_small_sweep_is_run_and_drawn(tmp_path, monkeypatch):
    """The whole way: the sweep in the recipe's file, its table of jobs, the table and picture of the script."""
    # the terminal's table belongs to the end of a process
    monkeypatch.setattr("headstart.cli.sweep_table.atexit", SimpleNamespace(register=lambda *_: None))
    monkeypatch.setattr(sys, "argv", [
        "src/train.py", "experiment=transfer_vs_scratch", "data.shots_per_class=4", "finetuning=scratch,probe",
        "seed=0", "trainer=cpu", "trainer.precision=32-true", "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path}",
        "data.val_fraction=0.06", "data.test_fraction=0.06", "data.num_workers=0",
    ])  # fmt: skip
    importlib.import_module("train").main()
    lines, failed = PLOT.read(tmp_path, "test/acc", "data.shots_per_class", "seed")
    assert failed == 0
    assert {name: sorted(points) for name, points in lines.items()} == {"scratch": [4], "probe": [4]}
    assert lines["probe"][4][0] > lines["scratch"][4][0]


@pytest.fixture
def sweep(tmp_path):
    """A folder with this `sweep.csv`: rows of a job's words and its score."""

    def write(*jobs: tuple[str, str]) -> Path:
        rows = [f"{words},{score},elsewhere/{number},{10 * number}" for number, (words, score) in enumerate(jobs, 1)]
        (tmp_path / "sweep.csv").write_text("\n".join(["job,score,run,seconds", *rows]) + "\n")
        return tmp_path

    return write


JOBS = [
    ("x=5 finetuning=probe seed=0 model.weights=my file.pth", "0.5"),
    ("x=5 finetuning=probe seed=1 model.weights=my file.pth", "0.7"),
    ("x=50 finetuning=probe seed=0 model.weights=my file.pth", "0.9"),
    ("x=50 finetuning=full seed=0 model.weights=my file.pth", "0.8"),
    ("x=50 finetuning=full seed=1 model.weights=my file.pth", ""),
    ("x=null finetuning=full seed=0 model.weights=my file.pth", "1.0"),
]


def test_plot_sweep_shows_mean_and_range_of_each_strategy(sweep, monkeypatch, capsys):
    folder = sweep(*JOBS)
    monkeypatch.setattr(sys, "argv", ["plot_sweep.py", str(folder), "--x", "x"])
    PLOT.main()
    told = capsys.readouterr()
    assert (
        told.out
        == (folder / "sweep.md").read_text()
        == (
            "| x | probe | full |\n| --- | --- | --- |\n"
            "| 5 | 0.600 (0.500 to 0.700) |  |\n| 50 | 0.900 | 0.800 |\n| all |  | 1.000 |\n\n"
            "| x, seconds | probe | full |\n| --- | --- | --- |\n"
            "| 5 | 15 (10 to 20) |  |\n| 50 | 30 | 40 |\n| all |  | 60 |\n"
        )
    )
    assert "1 jobs have no score" in told.err
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    lines, times = (PLOT.read(folder, metric, "x", "seed")[0] for metric in ("score", "seconds"))
    axes, by_time = PLOT.draw(lines, times, "x", "score").axes
    assert axes.get_xscale() == "log"
    assert [line.get_label() for line in axes.lines] == ["probe", "full"]
    assert axes.lines[0].get_ydata() == pytest.approx([0.6, 0.9])
    assert axes.lines[1].get_xdata() == pytest.approx([50, 100])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "50", "all"]
    assert by_time.lines[0].get_xydata().tolist() == [[15, pytest.approx(0.6)], [30, pytest.approx(0.9)]]
    outline = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (outline.min(), outline.max()) == (0.5, 0.9)


def test_plot_sweep_never_averages_over_what_is_no_seed(sweep):
    folder = sweep(("x=5 finetuning=full model=a seed=0", "0.5"), ("x=5 finetuning=full model=b seed=0", "0.7"))
    lines, _ = PLOT.read(folder, "score", "x", "seed")
    assert lines == {"a": {5: [0.5]}, "b": {5: [0.7]}}
    folder = sweep(("x=5 head=l model=a", "0.5"), ("x=5 head=m model=b", "0.7"))
    assert set(PLOT.read(folder, "score", "x", "seed")[0]) == {"head=l model=a", "head=m model=b"}


@pytest.mark.parametrize(
    ("jobs", "x", "message"),
    [
        ([], "x", "no job of .* has a score"),
        ([("x=5 seed=0", "")], "x", "no job of .* has a score"),
        ([("x=5 seed=0", "0.5")], "y", "the sweep does not set y: --x=<one of x, seed>"),
        ([("x=all seed=0", "0.5")], "x", "x=all is not a positive number"),
        ([("x=0 seed=0", "0.5")], "x", "x=0 is not a positive number"),
    ],
)
def test_plot_sweep_refuses_what_it_cannot_draw(jobs, x, message, sweep):
    with pytest.raises(UsageError, match=message):
        PLOT.read(sweep(*jobs), "score", x, "seed")
