"""Which run goes on, and with which settings."""

import os

import pytest
from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import OmegaConf

from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.runs.directory import Run
from headstart.runs.resume import DEFAULT_NAME, config_to_run, run_directory, was_restarted


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def make_run(folder, time=0, **settings):
    folder.mkdir(parents=True)
    file = Run(folder).config_file
    OmegaConf.save({"paths": {"run": str(folder.resolve())}, "resume": None, **settings}, file)
    os.utime(file, (time, time))
    return folder


def test_a_new_run_has_a_directory_of_its_own(tmp_path):
    assert run_directory(None, str(tmp_path), "train", "today") == str(tmp_path / "train/runs/today")


def test_last_is_the_run_started_last(tmp_path):
    make_run(tmp_path / "train/runs/b", time=1)
    newest = make_run(tmp_path / "train/runs/a", time=2)
    (tmp_path / "train/runs/c").mkdir()  # nothing was written there
    assert run_directory("last", str(tmp_path), "train", "today") == str(newest)


def test_last_is_of_any_name_and_kind_unless_a_name_is_given(tmp_path):
    mine = make_run(tmp_path / "mine/runs/a", time=1)
    job = make_run(tmp_path / "mine/multiruns/today/3", time=2)
    nested = make_run(tmp_path / "team/alice/runs/a", time=3)
    assert run_directory("last", str(tmp_path), "train", "today") == str(nested)
    assert run_directory("last", str(tmp_path), "team/alice", "today") == str(nested)
    assert run_directory("last", str(tmp_path), "mine", "today") == str(job)
    os.utime(Run(mine).config_file, (9, 9))
    assert run_directory("last", str(tmp_path), "mine", "today") == str(mine)


def test_the_default_name_is_that_of_the_config():
    assert OmegaConf.load(CONF / "train.yaml").name == DEFAULT_NAME


def test_a_run_by_its_directory_or_checkpoint(tmp_path):
    run = make_run(tmp_path / "a")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    assert run_directory(str(run), "elsewhere", "train", "today") == str(run)
    assert run_directory(str(run / "checkpoints" / "last.ckpt"), "elsewhere", "train", "today") == str(run)


@pytest.mark.parametrize(("resume", "message"), [("last", "no run in"), ("lost", "resume=lost is no run: give `last`")])
def test_no_such_run(resume, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        run_directory(resume, str(tmp_path), "train", "today")


def hydra(*overrides, mode=RunMode.RUN):
    conf = OmegaConf.structured(HydraConf)
    conf.mode, conf.overrides.task = mode, list(overrides)
    return conf


def today(run, **settings):
    return OmegaConf.create({"paths": {"run": str(run)}, "resume": str(run), **settings})


def test_the_runs_own_settings_and_what_is_said_anew(tmp_path):
    run = make_run(tmp_path / "a", seed=7, trainer={"max_epochs": 10})
    config = today(run, seed=0, trainer={"max_epochs": 20})
    recalled = config_to_run(config, hydra(f"resume={run}", "trainer.max_epochs=20"))
    assert (recalled.seed, recalled.trainer.max_epochs, recalled.resume) == (7, 20, str(run))


@pytest.mark.parametrize("override", ["optimizer.lr=1", "model=resnet50", "+seeed=3", "trainer.devices=2"])
def test_what_would_make_it_another_run_is_refused(override, tmp_path):
    run = make_run(tmp_path / "a")
    with pytest.raises(UsageError, match=r"a resumed run keeps its settings.*model\.weights="):
        config_to_run(today(run), hydra(f"resume={run}", override))


def test_a_run_that_was_moved_continues_in_its_new_place(tmp_path, caplog):
    run = make_run(tmp_path / "a").rename(tmp_path / "b")
    config = OmegaConf.merge(today(run), {"paths": {"cache": "of this machine"}})
    assert config_to_run(config, hydra()).paths == {"run": str(run), "cache": "of this machine"}
    assert f"this run was started in {tmp_path / 'a'}; it continues in {run}" in caplog.text


def test_a_run_of_another_user_is_named(tmp_path, caplog, monkeypatch):
    run = make_run(tmp_path / "a")
    config_to_run(today(run), hydra())
    assert "another user" not in caplog.text
    monkeypatch.setattr(os, "getuid", lambda: os.stat(run).st_uid + 1)
    config_to_run(today(run), hydra())
    assert "belongs to another user" in caplog.text


def test_a_sweep_is_not_resumed_with_m(tmp_path):
    with pytest.raises(UsageError, match="leave out -m"):
        config_to_run(today(make_run(tmp_path / "a")), hydra(mode=RunMode.MULTIRUN))


def test_a_launch_that_is_repeated_may_have_any_words(tmp_path):
    """Those of a cluster's requeueing are the ones that the run began with."""
    run = make_run(tmp_path / "a", seed=3)
    assert config_to_run(today(run, seed=3), hydra("seed=3", "data=image_folder")).seed == 3
    with pytest.raises(UsageError, match="a resumed run keeps its settings"):
        config_to_run(today(run, seed=3), hydra("seed=3", f"resume={run}"))


@pytest.mark.parametrize("name", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_restarted_launch_is_known(name, monkeypatch):
    assert not was_restarted()
    monkeypatch.setenv(name, "0")
    assert not was_restarted()
    monkeypatch.setenv(name, "1")
    assert was_restarted()


def test_a_restarted_launch_goes_on_with_its_run(tmp_path, monkeypatch):
    run = make_run(tmp_path / "a", seed=3)
    repeated = OmegaConf.merge(today(run, seed=0), {"resume": None})
    assert config_to_run(repeated, hydra("seed=0")) is repeated, "a launch that was not restarted starts a new run"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    found = config_to_run(repeated, hydra("seed=0"))
    assert (found.seed, found.resume) == (3, str(run))
    assert repeated.resume is None, "the composed config stays as it is"
    missing = OmegaConf.merge(repeated, {"paths": {"run": str(tmp_path / "b")}})
    assert config_to_run(missing, hydra()) is missing, "it was restarted before it had written anything"
