"""What tables show of names that look like markup."""

from types import SimpleNamespace

from hydra.core.utils import JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from headstart.reporting.sweep import SweepTable
from headstart.reporting.tables import data_table, show


def test_class_names_are_shown_as_they_are(capsys):
    show(data_table(["[bold]x", ":cat:"], {"train": [1, 2]}))
    told = capsys.readouterr().err
    assert "[bold]x" in told
    assert ":cat:" in told


def test_a_sweeps_words_are_shown_and_kept_as_they_are(tmp_path, capsys, monkeypatch):
    printed = []
    monkeypatch.setattr("atexit.register", lambda *call: printed.append(call))
    table = SweepTable()
    for number, word in enumerate(("finetuning.groups=[stem]", "finetuning.groups=[head]")):
        where = {"mode": RunMode.MULTIRUN, "sweep": {"dir": str(tmp_path), "subdir": str(number)}}
        settled = OmegaConf.create({"monitor": "val/acc_macro", "mode": "max"})
        job = SimpleNamespace(status=JobStatus.COMPLETED, return_value=0.5, overrides=[word], cfg=settled)
        table.on_job_end(OmegaConf.create({"hydra": where, "monitor": "val/acc", "mode": "max"}), job)
    ((function, *arguments),) = printed
    function(*arguments)
    told = capsys.readouterr().err
    assert "sweep: best val/acc_macro of each job" in told
    assert "finetuning.groups=[stem]" in told
    assert (tmp_path / "sweep.csv").read_text().splitlines()[1].startswith("finetuning.groups=[stem],0.5,")
