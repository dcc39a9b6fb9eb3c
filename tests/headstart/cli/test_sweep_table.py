"""What tables show of names that look like markup."""

import json

from hydra.types import RunMode
from omegaconf import OmegaConf

from headstart.callbacks.learning_table import learning_table
from headstart.cli import sweep_table as sweep
from headstart.cli.sweep_table import SweepTable
from headstart.cli.terminal import show
from headstart.display.tables import data_table


def test_class_names_are_shown_as_they_are(capsys):
    show(data_table(["[bold]x", ":cat:"], {"train": [1, 2]}, {"train": 3}))
    told = capsys.readouterr().err
    assert "[bold]x" in told
    assert ":cat:" in told


def test_control_characters_of_all_tables_are_not_sent_to_the_terminal(tmp_path, capsys):
    """A class name could clear the screen."""
    show(data_table(["\x1b[2Jx"], {"train": [1]}, {"train": 1}))
    show(learning_table("\x1b[2Jtitle", [("\x1b[2Jgroup", "", "", "", "")] * 3))
    job(tmp_path, 0, "data.root=a\x1b[2Jb")
    sweep.show(tmp_path, "val/acc")
    told = capsys.readouterr().err
    assert "\x1b" not in told
    for shown in ("?[2Jx", "?[2Jtitle", "?[2Jgroup", "data.root=a?[2Jb"):
        assert shown in told


def job(folder, number, word, score=None, monitor="val/acc"):
    """What a job leaves in its folder; one that failed has no metrics."""
    run = folder / str(number)
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra/overrides.yaml").write_text(json.dumps([word, "data=fake"]))
    if score is not None:
        (run / "metrics.json").write_text(json.dumps({"score": score, "seconds": 3.0, "parameters": 1200}))
        (run / "config.yaml").write_text(f"monitor: {monitor}\nmode: max\n")


def of_sweep(folder):
    where = {"mode": RunMode.MULTIRUN, "sweep": {"dir": str(folder)}}
    return OmegaConf.create({"hydra": where, "monitor": "val/acc", "mode": "max"})


def test_a_sweeps_words_are_shown_and_kept_as_they_are(tmp_path, capsys, monkeypatch):
    printed = []
    monkeypatch.setattr("atexit.register", lambda *call: printed.append(call))
    job(tmp_path, 0, "finetuning.groups=[stem]", 0.5, "val/acc_macro")
    job(tmp_path, 1, "finetuning.groups=[head]")
    SweepTable().on_multirun_start(of_sweep(tmp_path))
    ((function, *arguments),) = printed
    function(*arguments)
    told = capsys.readouterr().err
    assert "sweep: best val/acc_macro of each job" in told
    assert "finetuning.groups=[stem]" in told
    assert "data=fake" not in told
    rows = (tmp_path / "sweep.csv").read_text().splitlines()
    assert rows[1] == f"finetuning.groups=[stem] data=fake,0.5,{tmp_path / '0'},3.0,1200"
    assert rows[2].startswith("finetuning.groups=[head] data=fake,,")


def test_jobs_in_processes_of_their_own_are_all_in_the_table(tmp_path):
    """As under a parallel launcher: each process has a callback of its own, and sees its own jobs end."""
    for number in (0, 1, 10, 2):
        job(tmp_path, number, f"seed={number}", number / 10)
        SweepTable().on_job_end(of_sweep(tmp_path), job_return=None)
    assert [row.split()[0] for row in (tmp_path / "sweep.csv").read_text().splitlines()[1:]] == [
        "seed=0", "seed=1", "seed=2", "seed=10",
    ]  # fmt: skip


def test_a_sweep_without_jobs_has_no_table(tmp_path, capsys):
    sweep.show(tmp_path, "val/acc")
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.iterdir())
