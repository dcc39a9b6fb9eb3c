"""A run goes to a hub, which is a server on this machine: only after it was listed and confirmed."""

import json
import os
import shutil

import pytest
from hydra import compose, initialize_config_dir

pytest.importorskip("huggingface_hub")
from stand_in_hub import serving

from headstart.backbones.tiny_resnet import TinyResNet
from headstart.cli.conf_files import CONF
from headstart.cli.schemas import check_push
from headstart.errors import Failure, UsageError
from headstart.report import push as pushing
from headstart.report.push import known_places, places_in, push
from headstart.runs.directory import Run, find_checkpoint
from headstart.tasks import checkpoint
from headstart.training.run import train

REPO = "me/letters"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run for all."""
    folder = tmp_path_factory.mktemp("home") / "run"
    words = ["data=fake", "data.num_samples=60", "data.image_size=16", "model.image_size=16", "trainer=cpu"]
    words += ["~experiment", "cache=off", "trainer.max_epochs=1", "test=false", "logger=none", "report=true"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(compose("train", [f"paths.run={folder}", *words]))
    (folder / "export").mkdir()
    (folder / "export/best.onnx").write_bytes(b"\0network\0")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return Run(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(tmp_path / "hub", monkeypatch) as found:
        yield found


def pushed(run, *words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("push", [f"run={run.folder}", f"repo={REPO}", *words])
    check_push(cfg)
    return push(cfg, find_checkpoint(cfg.run))


def test_nothing_leaves_before_it_is_confirmed(run, hub, finished, capsys):
    os.utime(run.export_folder / "best.onnx", (0, 0))
    with pytest.raises(UsageError, match=r"nothing was uploaded.*add confirm=true"):
        pushed(run)
    assert hub.asked == []
    listed = {line.split()[0]: line for line in capsys.readouterr().err.splitlines() if line.startswith("  ")}
    assert list(listed) == ["README.md", "checkpoints/best.ckpt", "classes.json", "export/best.onnx"]
    assert f"names known folders of this machine: {finished}" in listed["checkpoints/best.ckpt"]
    assert "places" not in listed["classes.json"]
    assert "OLDER than the checkpoint" in listed["export/best.onnx"]
    assert f"{run.best.stat().st_size / 1e6:.3g} MB" in listed["checkpoints/best.ckpt"]


def test_a_confirmed_run_can_be_used_from_the_hub(run, hub, capsys):
    address = pushed(run, "confirm=true")
    assert address.endswith(f"/{REPO}")
    assert hub.private == {REPO: True}
    there = hub.root / REPO
    assert {file.relative_to(there).as_posix() for file in there.rglob("*") if file.is_file()} == {
        "README.md", "checkpoints/best.ckpt", "classes.json", "export/best.onnx",
    }  # fmt: skip
    assert (there / "README.md").read_bytes() == run.model_card_file.read_bytes()
    trained = checkpoint.load_task(run.best)[0].backbone.state_dict()
    found = TinyResNet(weights=f"hf://{REPO}").state_dict()
    assert all((found[name] == tensor).all() for name, tensor in trained.items())


def test_a_person_at_a_terminal_is_asked(run, hub, monkeypatch):
    monkeypatch.setattr(pushing, "_agreed", lambda repo: repo == REPO)
    pushed(run, "report=true", "private=false")
    assert (hub.root / REPO / "report.html").is_file()
    assert hub.private == {REPO: False}


def test_a_public_repository_gets_nothing_that_should_be_private(run, hub):
    hub.private[REPO] = False
    with pytest.raises(UsageError, match=r"me/letters exists and is PUBLIC\. Nothing was uploaded"):
        pushed(run, "confirm=true")
    assert not (hub.root / REPO).exists()


def test_without_a_hub_the_failure_says_what_to_do(run, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Failure, match=r"the upload to me/letters failed: .*run the same command again"):
        pushed(run, "confirm=true")


def test_a_card_is_written_if_there_is_none(run, hub):
    run.model_card_file.unlink()
    pushed(run, "confirm=true")
    assert "## Results" in (hub.root / REPO / "README.md").read_text()


def test_a_name_that_is_no_repository_is_refused(run):
    with pytest.raises(UsageError, match="repo=letters: give <owner>/<name>"):
        pushed(run, "repo=letters")


def test_places_are_found_in_any_file(run):
    places = known_places(run)
    inside = json.dumps({"root": f"{run.folder}/data"}).encode()
    assert places_in(b"\0\1" + inside, places) == (str(run.folder),)
    assert places_in(b"\x80C:\\Users\\Ann\\pictures\0", places) == ("C:\\Users\\Ann\\pictures",)
    assert places_in(b"see /home/ann/photos.", places) == ("/home/ann/photos.",)
    assert places_in(b"https://huggingface.co/docs and a/b", places) == ()


def test_places_are_compared_by_whole_folders():
    from headstart.report.push import places_in

    assert places_in(b"/home/ann/patients/x.png", ["/home/ann"]) == ("/home/ann/patients/x.png",)
    assert places_in(b'"/home/ann" "/home/annabel/y"', ["/home/ann"]) == ("/home/ann", "/home/annabel/y")
    assert places_in(rb'"C:\\Users\\ann\\x.png"', []) == (r"C:\\Users\\ann\\x.png",)
    assert places_in(b"https://x.org/home/page", []) == ()
