"""The campaign for a GPU runs to its end without one, keeps what it measured, and says what it left out."""

import argparse
import json
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from headstart.training.build import build_data, build_task, build_trainer

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: run scripts/gpu_campaign.py itself"),
]


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def command(out, *options):
    return [sys.executable, "scripts/gpu_campaign.py", "--out", str(out), "--networks", "tiny_resnet", *options]


def campaign(out, *options):
    return subprocess.run(command(out, *options), cwd=ROOT, capture_output=True, text=True)


@pytest.mark.exhaustive
def test_every_part_runs_to_its_end_on_a_cpu(tmp_path):
    done = campaign(tmp_path, "--minutes", "20")
    table = (tmp_path / "table.md").read_text()
    assert done.returncode == 0, table
    assert "failed" not in table
    assert "nan" not in table
    assert table.startswith("NO GPU: tiny sizes on the CPU, which say nothing about speed.")
    assert "| tiny_resnet, unfreeze_at | 12 | yes |" in table
    assert "tiny_resnet, 16-mixed: left out: needs a GPU" in table
    fit = json.loads((tmp_path / "fit.json").read_text())
    assert 0 < fit["tiny_resnet, 32-true"]["epochs / bare"] < 5
    assert "share of the matrix peak" not in fit["tiny_resnet, 32-true"]
    assert list((tmp_path / "work/runs").iterdir()) == []

    again = campaign(tmp_path, "--minutes", "5")
    assert again.returncode == 0
    assert "fit: at most" in again.stdout  # it tries what was left out
    assert "probe: at most" not in again.stdout
    measured = {case: found for case, found in fit.items() if "left out" not in found}
    assert measured.items() <= json.loads((tmp_path / "fit.json").read_text()).items()

    other = campaign(tmp_path, "--networks", "resnet18")
    assert other.returncode == 2
    assert "measured otherwise (networks: ['tiny_resnet'] -> ['resnet18'])" in other.stderr


def test_what_was_not_reached_is_named(tmp_path):
    done = campaign(tmp_path, "--minutes", "0.3", "--parts", "predict", "tests")  # less than a part needs
    assert done.returncode == 3
    assert done.stdout.count("not reached") == 2


def test_a_part_is_cut_off_at_its_limit(tmp_path):
    from gpu_campaign import run_part

    options = argparse.Namespace(out=tmp_path, networks=["tiny_resnet"], photos=None)
    assert run_part("ddp", 1, options) == "cut off after 1 s; the same command goes on with it"
    assert not (tmp_path / "ddp.complete").exists()


def test_time_that_a_part_leaves_is_used_by_the_next_ones(tmp_path, monkeypatch):
    import gpu_campaign

    limits = []
    monkeypatch.setattr(gpu_campaign, "SHARES", {"fit": 0.6, "probe": 0.3, "tests": 0.1})
    monkeypatch.setattr(gpu_campaign, "run_part", lambda part, limit, options: limits.append(limit) or "complete")
    outcomes = {}
    gpu_campaign.run_parts(["fit", "probe", "tests"], outcomes, time.monotonic() + 1000, None)
    assert limits == pytest.approx([600, 750, 1000], abs=1)
    assert outcomes == dict.fromkeys(["fit", "probe", "tests"], "complete")


def test_sigterm_ends_the_part_and_writes_the_table(tmp_path):
    process = subprocess.Popen(command(tmp_path, "--parts", "resume", "tests"), cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (tmp_path / "work/runs").exists():  # the part has begun
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    table = (tmp_path / "table.md").read_text()
    assert "interrupted; the same command goes on with it" in table
    assert "not reached" in table
    assert processes_of(tmp_path) == []


def processes_of(folder):
    """Command lines that name a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [text] if str(folder) in (text := file.read_text()) else []
        except OSError:  # has ended
            continue
    return found


def test_a_failed_case_is_explained_and_tried_again(tmp_path, capsys):
    from gpu_parts.bench import TINY, Bench

    def fails():
        try:
            raise ValueError("the cause")
        except ValueError as cause:
            raise RuntimeError("what came of it") from cause

    bench = Bench("part", TINY, tmp_path, photos=tmp_path)
    bench.measure("one", fails)
    bench.measure("two", lambda: {"seconds": 1.0})
    assert json.loads((tmp_path / "part.json").read_text())["one"] == {"failed": "ValueError: the cause"}
    assert "Traceback" in capsys.readouterr().err
    bench = Bench("part", TINY, tmp_path, photos=tmp_path)
    bench.measure("one", lambda: {"seconds": 2.0})
    bench.measure("two", fails)
    assert json.loads((tmp_path / "part.json").read_text()) == {"two": {"seconds": 1.0}, "one": {"seconds": 2.0}}


class Waits(Callback):
    """Warns in each step as torch does about a wait; may fail in a step."""

    def __init__(self, fails_at=None):
        self.fails_at = fails_at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        if batch_idx == self.fails_at:
            raise RuntimeError("as planned")


@pytest.fixture
def watched(quick, tmp_path, monkeypatch):
    """Trains with 4 steps in an epoch under the watch for waits; gives what it wrote, and the modes that it set."""
    modes = []

    def set_mode(mode):
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all synchronizing "
                      "operations", stacklevel=1)  # fmt: skip

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)

    def train(waits):
        from gpu_parts.watching import Synchronisations

        file = tmp_path / "watched.json"
        cfg = quick("trainer.max_epochs=2")
        trainer, data = build_trainer(cfg), build_data(cfg)
        trainer.callbacks += [waits, Synchronisations(str(file))]
        with pytest.warns(UserWarning, match="synchronizing"):  # outside the watched steps
            trainer.fit(build_task(cfg, data), data)
        return json.loads(file.read_text())

    return train, modes


def test_waits_are_counted_between_the_first_and_the_last_step(watched):
    train, modes = watched
    found = train(Waits())
    assert found["steps"] == 2
    assert [place.split(":")[0] for place in found["places"]] == ["test_gpu_campaign.py"]
    assert list(found["places"].values()) == [2]
    assert modes == ["warn", "default"] * 2


def test_nothing_watches_after_an_error(watched):
    train, modes = watched
    before, show = list(warnings.filters), warnings.showwarning
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="as planned"):
        train(Waits(fails_at=1))
    assert modes == ["warn", "default"]
    assert (warnings.filters, warnings.showwarning) == (before, show)
