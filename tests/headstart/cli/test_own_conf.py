"""A person's own conf/ in the current folder."""

import shutil

import pytest

from headstart.cli import conf_files
from headstart.cli.conf_files import CONF, choices_by_group
from headstart.cli.in_process import call
from headstart.cli.own_conf import announcement, own_conf, use_own_conf


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a model of its own, and with another optimizer in place of ours."""
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("model/mine", "defaults: [torchvision, _self_]\nname: resnet18\n"),
        ("optimizer/adamw", "defaults: [base]\n_target_: torch.optim.AdamW\nlr: 0.123\n"),
    ):
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(content)
    yield tmp_path / "conf"
    use_own_conf("")


def test_its_files_come_first_and_ours_stay(own):
    composed, _ = call("train", lambda cfg: cfg, ["model=mine", "head=mlp"])
    assert composed.model.name == "resnet18"
    assert composed.optimizer.lr == 0.123
    assert composed.head._target_.endswith("MLPHead")


def test_it_can_be_chosen_and_is_announced(own):
    use_own_conf("train")
    assert {"mine", "resnet50"} <= set(choices_by_group()["model"])
    assert announcement() == "conf/ of this folder is used: 2 config files, in place of ours: optimizer/adamw.yaml"


def test_other_entry_points_do_not_use_it(own):
    """A run directory, and the folder that it lies in, may come from a stranger."""
    for name in ("evaluate", "predict", "export", "report", "serve", "push"):
        assert own_conf(name) is None
    assert own_conf("train") == own


@pytest.mark.parametrize("below", ["", "checkpoints"])
def test_a_conf_folder_in_a_run_directory_is_not_used(own, monkeypatch, below):
    (own.parent / "config.yaml").write_text("seed: 0\n")
    assert own_conf("train") == own, "other projects have a config.yaml, too"
    (own.parent / "checkpoints").mkdir()
    if below:
        shutil.copytree(own, own.parent / below / "conf")
        monkeypatch.chdir(own.parent / below)
    assert own_conf("train") is None


def test_our_own_folder_is_not_another_one(monkeypatch):
    monkeypatch.chdir(CONF.parent)
    assert own_conf("train") is None


def test_after_a_call_nothing_of_it_is_left(own):
    call("train", lambda cfg: None, [])
    assert conf_files.added == []
