"""What clusters and terminals send, to the run and to all its processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException

from headstart.cli.run import run_entry_point
from headstart.errors import UsageError
from headstart.runs.directory import Run
from headstart.training import run as training
from headstart.training.run import train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def test_sigterm_to_all_processes_leaves_a_run_that_goes_on(tmp_path):
    """Loader workers would die of it, and the run of their death, with nothing saved."""
    run = tmp_path / "run"
    settings = [
        "data=fake", "data.num_samples=80", "data.image_size=16", "model.image_size=16", "data.batch_size=8",
        "data.num_workers=2", "trainer=cpu", "trainer.max_epochs=500", "trainer.enable_progress_bar=false",
        "finetuning=full", "scheduler=none", "finetuning.patience=null", "compare_scratch=false",
        f"hydra.run.dir={run}",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "src/train.py")]
    process = subprocess.Popen([*command, *settings], stderr=subprocess.PIPE, text=True, start_new_session=True)
    waited = time.monotonic()
    while not (run / "checkpoints/last.ckpt").exists() and time.monotonic() - waited < 120:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert f"resume={run}" in told
    assert told.count("SIGTERM: stopping") == 1, "the workers keep quiet"
    reached = len((run / "csv/metrics.csv").read_text().splitlines())
    epochs = 1 + sum("val" in line for line in told.splitlines() if line.startswith("epoch"))
    again = subprocess.run(
        [*command, f"resume={run}", f"trainer.max_epochs={epochs + 1}", "data.num_workers=0"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert len((run / "csv/metrics.csv").read_text().splitlines()) > reached


def test_sigterm_while_testing_is_no_success(monkeypatch):
    """Lightning leaves with exit code 0."""

    def main():
        raise SIGTERMException

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as leaving:
        run_entry_point(main, "train")
    assert leaving.value.code == 143


class Terminate(Callback):
    """Sends SIGTERM to this process at an event."""

    def __init__(self, event):
        setattr(self, event, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))


@pytest.mark.parametrize(
    "event", ["setup", "on_train_end", "on_fit_end", "on_test_start", "on_test_batch_end", "on_test_end"]
)
def test_sigterm_ends_the_run_wherever_it_is(event, quick, monkeypatch):
    """Before, it was ignored behind the last step: the test went on, and then the comparison with random weights."""
    build = training.build_trainer

    def build_trainer(*given):
        trainer = build(*given)
        trainer.callbacks.append(Terminate(event))
        return trainer

    cfg = quick("trainer.max_epochs=1", "compare_scratch=true")
    with monkeypatch.context() as patch:
        patch.setattr(training, "build_trainer", build_trainer)
        with pytest.raises(SystemExit) as leaving:
            training.run(cfg)
    assert leaving.value.code == 143
    run = Run(Path(cfg.paths.run))
    assert not run.has_ended
    assert not run.scratch.exists
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if event != "setup":
        again = cfg.copy()
        again.resume, again.compare_scratch = cfg.paths.run, False
        training.run(again)
        assert "test/acc" in Run(Path(cfg.paths.run)).metrics


def test_a_run_is_not_written_over(quick):
    cfg = quick("trainer.max_epochs=1", "test=false")
    train(cfg)
    with pytest.raises(UsageError, match=r"there is a run in .* already: resume="):
        train(cfg)


@pytest.mark.parametrize("scheduler", ["warmup_cosine", "slanted_triangular", "cosine"])
def test_a_refused_length_leaves_the_run_as_it_was(scheduler, quick):
    cfg = quick(f"scheduler={scheduler}", "trainer.max_epochs=2")
    train(cfg)
    before = contents(Path(cfg.paths.run))
    longer = quick(f"scheduler={scheduler}", "trainer.max_epochs=4", "test=false", f"resume={cfg.paths.run}")
    with pytest.raises(UsageError, match=f"trained with {scheduler if scheduler != 'cosine' else 'Cosine'}"):
        train(longer)
    assert contents(Path(cfg.paths.run)) == before


def contents(folder):
    """Every file of a folder, also the curves, which a resumed run cuts off at its checkpoint."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_time_limit_ends_with_a_validated_epoch(quick):
    cfg = quick("trainer.max_time=00:00:00:01", "trainer.max_epochs=1000", "finetuning.patience=null", "test=false")
    train(cfg)
    steps = [line for line in (Path(cfg.paths.run) / "csv/metrics.csv").read_text().splitlines() if line]
    assert 2 < len(steps) < 2000
    train(quick("trainer.max_time=00:00:00:02", "trainer.max_epochs=1000", "finetuning.patience=null", "test=false",
                f"resume={cfg.paths.run}"))  # fmt: skip
    assert len((Path(cfg.paths.run) / "csv/metrics.csv").read_text().splitlines()) > len(steps)
