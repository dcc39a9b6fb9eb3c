"""A sweep goes on with the jobs that have not ended."""

import json
import sys

import pytest
from omegaconf import OmegaConf

from headstart.cli import unfinished_sweep
from headstart.cli.unfinished_sweep import BASIC, continue_sweep, planned_jobs
from headstart.errors import Failure, UsageError
from headstart.runs.directory import Run


def sweep(folder, *words, sweeper=BASIC, params=None):
    folder.mkdir(exist_ok=True)
    record = {"sweeper": {"_target_": sweeper, "params": params}, "overrides": {"task": list(words)}}
    OmegaConf.save({"hydra": record}, folder / "multirun.yaml")
    return folder


def begin(job, ended):
    run = Run(job)
    run.overrides_file.parent.mkdir(parents=True)
    run.overrides_file.write_text("- seed=1\n")
    OmegaConf.save({"monitor": "val/acc"}, run.config_file)
    if ended:
        run.metrics_file.write_text(json.dumps({"score": 0.5}))


@pytest.fixture
def started(monkeypatch):
    """The command lines of the processes that were started; each returns the next of `codes`, or 0."""
    lines, codes = [], []

    class Process:
        def __init__(self, command):
            lines.append(command[2:])

        def wait(self):
            return codes.pop(0) if codes else 0

    monkeypatch.setattr(unfinished_sweep.subprocess, "Popen", Process)
    monkeypatch.setattr(sys, "argv", ["src/train.py"])
    return lines, codes


CONFIG = OmegaConf.create({"monitor": "val/acc"})


def test_every_job_is_planned(tmp_path):
    found = planned_jobs(sweep(tmp_path, "seed=0,1", "finetuning.groups=[stem],[head]", params={"optimizer.lr": "1,2"}))
    assert [job.folder.name for job in found] == [str(number) for number in range(8)]
    assert found[1].overrides == ["optimizer.lr=1", "seed=0", "finetuning.groups=[head]"]


def test_jobs_that_ended_stay_and_the_others_go_on(tmp_path, started):
    folder = sweep(tmp_path / "sweep", "data=fake", "seed=0,1,2")
    begin(folder / "0", ended=True)
    begin(folder / "1", ended=False)
    continue_sweep(folder, CONFIG, [f"resume={folder}", "trainer.max_time=00:01:00:00"])
    assert started[0] == [
        [f"resume={folder / '1'}", "trainer.max_time=00:01:00:00"],
        ["data=fake", "seed=2", "trainer.max_time=00:01:00:00", f"hydra.run.dir={folder / '2'}"],
    ]


def test_a_job_that_fails_does_not_stop_the_others_and_a_signal_does(tmp_path, started):
    folder = sweep(tmp_path / "sweep", "seed=0,1,2")
    lines, codes = started
    codes += [1, 0, 0]
    with pytest.raises(Failure, match="1 of 3 jobs failed: 0"):
        continue_sweep(folder, CONFIG, [])
    assert len(lines) == 3
    codes += [0, 143]
    with pytest.raises(SystemExit, match="143"):
        continue_sweep(folder, CONFIG, [])
    assert len(lines) == 5


def test_a_sweeper_that_plans_one_job_after_the_other(tmp_path, caplog):
    folder = sweep(
        tmp_path / "sweep", "seed=0", sweeper="hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    )
    begin(folder / "3", ended=False)
    assert [job.folder.name for job in planned_jobs(folder)] == ["3"]
    assert "only those that have begun are continued" in caplog.text


@pytest.mark.parametrize(
    "word",
    [
        "callbacks.learning_rate._target_=os.system",
        "data.seed=${oc.env:HOME}",
        "+hydra.callbacks.evil._target_=os.system",
        "hydra.job.env_set.PATH=x",
        "hydra/launcher=joblib",
        "resume=last",
        "paths.run=/elsewhere",
    ],
)
def test_a_sweep_of_a_stranger_starts_nothing(word, tmp_path, started):
    with pytest.raises(UsageError, match="REFUSED"):
        continue_sweep(sweep(tmp_path / "sweep", word, "seed=0,1"), CONFIG, [])
    assert not started[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("hydra: [", "is damaged"),
        ("- a", "is no record of a sweep"),
        ("hydra: {sweeper: 3}", "is no record of a sweep"),
        ("hydra: {sweeper: {_target_: a, params: null}}", "is no record of a sweep: it lacks 'overrides'"),
    ],
)
def test_a_damaged_record(content, reason, tmp_path):
    (tmp_path / "multirun.yaml").write_text(content)
    with pytest.raises(UsageError, match=reason) as error:
        planned_jobs(tmp_path)
    assert str(error.value).count("multirun.yaml") == 1
