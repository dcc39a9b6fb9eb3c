"""A run that is interrupted anywhere and resumed ends bitwise equal to an uninterrupted run.

`scripts/check_resume.py` does the same at many more moments, with real kills and as whole commands.
"""

import importlib
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback

from headstart.cli.run import run_entry_point
from headstart.tasks import checkpoint
from headstart.training import run as training

pytestmark = pytest.mark.filterwarnings("ignore:.*exists and is not empty")
ROOT = Path(__file__).parents[1]
CHECK = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "check_resume.py")))
DATA = ("data.num_samples=60", "data.batch_size=8", "augmentation=flip_crop")  # six batches an epoch
UNFREEZE = (
    *DATA, "finetuning=unfreeze_at", "finetuning.epoch=1", "finetuning.batch_norm=[frozen,train]", "head=mlp",
    "optimizer=sgd", "scheduler=onecycle", "task.unfreeze_warmup_steps=3", "trainer.max_epochs=3",
    "trainer.log_every_n_steps=2",
)  # fmt: skip
ACCUMULATE = (*UNFREEZE, "trainer.accumulate_grad_batches=2")
HALF_EPOCHS = (
    *DATA, "finetuning=gradual", "head.dropout=0.2", "scheduler=plateau", "scheduler.patience=0", "monitor=val/loss",
    "+trainer.val_check_interval=0.5",
)  # fmt: skip
AVERAGE = (*UNFREEZE, "callbacks=ema", "callbacks.ema.decay=0.9")
MIXED = (*UNFREEZE, "mixing=mixup_or_cutmix", "mixing.mixup=0.4")
NUMBERS = (*UNFREEZE, "task=regression", "data.numbers=true", "mixing=mixup")
PATIENCE = (*DATA, "finetuning=feature_extraction", "finetuning.patience=1", "optimizer.lr=0", "trainer.max_epochs=5")


class Killed(BaseException):
    """Stands for SIGKILL: nothing is saved or logged any more."""


class Strike(Callback):
    """Acts the `count`-th time (from 0) that something happens, in whichever run of the process."""

    def __init__(self, event: str, count: int, number: int):
        self.event, self.count, self.number = event, count, number
        self.trainer = None

    def setup(self, trainer, pl_module, stage):
        self.trainer = trainer

    def at(self, event):
        if event != self.event:
            return
        self.count -= 1
        if self.count == -1:
            self.act()

    def act(self):
        if self.number != signal.SIGKILL:
            os.kill(os.getpid(), self.number)
        else:
            self.trainer.loggers = []
            raise Killed


for hook in (*CHECK.STEP, *CHECK.VALIDATION, *CHECK.EPOCH, *CHECK.TEST):
    setattr(Strike, hook, lambda self, *_, event=hook, **__: self.at(event))


@pytest.fixture
def interrupted(monkeypatch):
    """Starts a run that gets a signal at a moment, and returns the exit code (-9 when it was killed)."""

    def run(cfg, event: str, count: int, number: int) -> int:
        strike = Strike(event, count, number)
        build = training.build_trainer

        def build_trainer(*arguments):
            trainer = build(*arguments)
            trainer.callbacks.append(strike)
            return trainer

        with monkeypatch.context() as patch:
            patch.setattr(training, "build_trainer", build_trainer)
            if event in (CHECK.BEFORE, CHECK.AFTER):
                patch.setattr(os, "replace", os.replace)  # to be put back
                CHECK._around_replace(strike, event)
            try:
                training.run(cfg)
            except Killed:
                return -signal.SIGKILL
            except SystemExit as leaving:
                return leaving.code
        return 0

    return run


@pytest.fixture(scope="module")
def references():
    return {}


@pytest.fixture
def undisturbed(quick, tmp_path, references):
    """The content of an uninterrupted run with these overrides."""

    def content(*overrides: str):
        if overrides not in references:
            cfg = quick(*overrides)
            cfg.paths.run = str(tmp_path / "undisturbed")
            training.run(cfg)
            references[overrides] = CHECK.content(Path(cfg.paths.run))
        return references[overrides]

    return content


def go_on(cfg, **changes):
    """Goes on with a run to its end."""
    again = cfg.copy()
    again.resume = cfg.paths.run
    for key, value in changes.items():
        OmegaConf.update(again, key.replace("__", "."), value)
    training.run(again)
    return Path(cfg.paths.run)


def assert_equal(expected, run):
    found = list(CHECK.differences(expected, CHECK.content(run)))
    assert not found, "\n".join(found)


KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
EXHAUSTIVE = pytest.mark.exhaustive
"""Moments that `scripts/check_resume.py` tries, too."""


@pytest.mark.parametrize(
    ("overrides", "event", "count", "number"),
    [
        pytest.param(UNFREEZE, "on_train_batch_end", 2, KILL, id="killed before anything was saved"),
        pytest.param(
            UNFREEZE, "on_train_epoch_start", 1, KILL, id="killed as the backbone is unfrozen", marks=EXHAUSTIVE
        ),
        pytest.param(UNFREEZE, "on_train_epoch_start", 2, KILL, id="killed between epochs", marks=EXHAUSTIVE),
        pytest.param(UNFREEZE, "on_before_optimizer_step", 9, KILL, id="killed in a step"),
        pytest.param(UNFREEZE, "on_validation_batch_end", 2, KILL, id="killed in a validation", marks=EXHAUSTIVE),
        pytest.param(
            UNFREEZE, CHECK.AFTER, 2, KILL, id="killed when best was saved and last was not", marks=EXHAUSTIVE
        ),
        pytest.param(UNFREEZE, CHECK.AFTER, 1, KILL, id="killed when last was saved and nothing of it logged"),
        pytest.param(
            UNFREEZE,
            CHECK.AFTER,
            3,
            KILL,
            id="killed when the second was saved and nothing of it logged",
            marks=EXHAUSTIVE,
        ),
        pytest.param(UNFREEZE, "on_test_batch_end", 0, KILL, id="killed in the test"),
        pytest.param(UNFREEZE, "on_train_batch_start", 8, TERM, id="SIGTERM in an epoch", marks=EXHAUSTIVE),
        pytest.param(
            UNFREEZE, "on_train_batch_start", 11, INT, id="Ctrl-C in the last batch of an epoch", marks=EXHAUSTIVE
        ),
        pytest.param(UNFREEZE, "on_validation_batch_end", 1, TERM, id="SIGTERM in a validation", marks=EXHAUSTIVE),
        pytest.param(UNFREEZE, "on_train_epoch_end", 0, INT, id="Ctrl-C at the end of an epoch", marks=EXHAUSTIVE),
        pytest.param(UNFREEZE, "on_train_epoch_end", 2, TERM, id="SIGTERM at the end of the last epoch"),
        pytest.param(
            ACCUMULATE, "on_train_batch_start", 8, TERM, id="SIGTERM while gradients gather", marks=EXHAUSTIVE
        ),
        pytest.param(
            ACCUMULATE, "on_train_batch_start", 9, INT, id="Ctrl-C in the batch that uses them", marks=EXHAUSTIVE
        ),
        pytest.param(HALF_EPOCHS, "on_train_batch_end", 4, KILL, id="killed after a validation amid an epoch"),
        pytest.param(
            HALF_EPOCHS, CHECK.AFTER, 3, KILL, id="killed when the epoch's last validation was saved", marks=EXHAUSTIVE
        ),
        pytest.param(
            HALF_EPOCHS,
            "on_train_batch_start",
            8,
            TERM,
            id="SIGTERM before a validation amid an epoch",
            marks=EXHAUSTIVE,
        ),
        pytest.param(AVERAGE, "on_train_batch_start", 8, TERM, id="SIGTERM with averaged weights"),
        pytest.param(MIXED, "on_train_batch_start", 8, TERM, id="SIGTERM with mixed pictures", marks=EXHAUSTIVE),
        pytest.param(NUMBERS, "on_train_batch_start", 8, TERM, id="SIGTERM with numbers"),
    ],
)
def test_ends_as_if_nothing_had_happened(overrides, event, count, number, quick, undisturbed, interrupted):
    expected = undisturbed(*overrides)
    cfg = quick(*overrides)
    assert interrupted(cfg, event, count, number) == (-9 if number == KILL else 128 + number)
    assert_equal(expected, go_on(cfg))


def test_a_signal_saves_the_steps_made_since_the_last_epoch(quick, interrupted):
    cfg = quick(*UNFREEZE)
    interrupted(cfg, "on_train_batch_start", 8, TERM)
    saved = checkpoint.read(Path(cfg.paths.run) / "checkpoints" / "last.ckpt")
    assert (saved["epoch"], saved["global_step"]) == (1, 9)


def test_a_run_that_was_moved(quick, undisturbed, interrupted, tmp_path):
    expected, cfg = undisturbed(*UNFREEZE), quick(*UNFREEZE)
    assert interrupted(cfg, "on_train_batch_start", 8, TERM) == 143
    before = Path(cfg.paths.run)
    cfg.paths.run = str(before.rename(tmp_path / "moved"))
    found = CHECK._without(str(before), CHECK.content(go_on(cfg)))  # best.ckpt was written before the move
    assert not list(CHECK.differences(expected, found))
    assert not before.exists()


def test_again_and_again(quick, undisturbed, interrupted):
    expected, cfg = undisturbed(*UNFREEZE), quick(*UNFREEZE)
    assert interrupted(cfg, "on_train_batch_start", 3, TERM) == 143
    cfg.resume = cfg.paths.run
    assert interrupted(cfg, "on_train_batch_start", 0, INT) == 130
    assert interrupted(cfg, "on_validation_batch_end", 0, KILL) == -9
    assert interrupted(cfg, "on_train_batch_start", 3, TERM) == 143
    assert_equal(expected, go_on(cfg))


def test_patience_that_was_lost_stays_lost(quick, undisturbed, interrupted):
    expected, cfg = undisturbed(*PATIENCE), quick(*PATIENCE)
    assert expected["last.ckpt"]["epoch"] < 4, "the run was to end early"
    assert interrupted(cfg, CHECK.AFTER, 2, KILL) == -9
    assert_equal(expected, go_on(cfg))
    assert_equal(expected, go_on(cfg))  # nor does a run that has ended train any more


def test_with_other_loader_processes(quick, undisturbed, interrupted):
    expected, cfg = undisturbed(*UNFREEZE), quick(*UNFREEZE, "data.num_workers=2")
    assert interrupted(cfg, "on_train_batch_start", 8, TERM) == 143
    assert_equal(expected, go_on(cfg, data__num_workers=1))


def test_a_damaged_checkpoint_costs_time_alone(quick, undisturbed, interrupted, caplog):
    expected, cfg = undisturbed(*UNFREEZE), quick(*UNFREEZE)
    assert interrupted(cfg, "on_train_epoch_start", 2, KILL) == -9
    last = Path(cfg.paths.run) / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:100_000])
    with caplog.at_level(logging.WARNING):
        run = go_on(cfg)
    assert "CANNOT RESUME FROM" in caplog.text
    assert "last.ckpt: it is damaged or cut short" in caplog.text
    assert_equal(expected, run)


def test_the_comparison_with_scratch_goes_on_too(quick, tmp_path, interrupted):
    overrides = (*DATA, "compare_scratch=true", "trainer.max_epochs=2")
    whole = quick(*overrides)
    whole.paths.run = str(tmp_path / "undisturbed")
    training.run(whole)
    cfg = quick(*overrides)
    assert interrupted(cfg, "on_train_batch_start", 2 * 6 + 8, TERM) == 143
    run = go_on(cfg)
    for part in (".", "scratch"):
        assert_equal(CHECK.content(tmp_path / "undisturbed" / part), run / part)


def command(script: str, *arguments: str) -> int:
    """Runs an entry point in this process as the shell would; returns the exit code."""
    module = importlib.import_module(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", "0")
        patch.setattr(sys, "argv", [str(ROOT / "src" / f"{script}.py"), *arguments])
        try:
            run_entry_point(module.main, script)
        except SystemExit as leaving:
            return leaving.code
    return 0


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_saves(quick, undisturbed, tmp_path):
    expected = undisturbed(*UNFREEZE)
    words = [
        "data=fake", "data.image_size=16", "model.image_size=16", "trainer=cpu", "trainer.enable_progress_bar=false",
        "compare_scratch=false", *UNFREEZE,
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "src/train.py", *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    runs = Path(os.environ["HEADSTART_LOGS"]) / "train" / "runs"
    while process.poll() is None and not any(runs.glob("*/checkpoints/last.ckpt.*.tmp")):
        time.sleep(0.0005)
    process.kill()
    assert process.wait() == -9
    assert command("train", "resume=last") == 0
    (run,) = runs.iterdir()
    assert_equal(expected, run)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("resume=last model=resnet18", "model=resnet18: a resumed run keeps its settings"),
        ("resume=last optimizer.lr=1", "optimizer.lr=1: a resumed run keeps its settings"),
        ("resume=nonsense", "resume=nonsense is no run: give `last`, a run directory"),
        ("resume=last name=other", "resume=last: there is no run in"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused_in_a_sentence(words, told, capfd):
    run = Path(os.environ["HEADSTART_LOGS"]) / "train" / "runs" / "today"
    run.mkdir(parents=True)
    OmegaConf.save({"paths": {"run": str(run)}}, run / "config.yaml")
    assert command("train", *words.split()) == 2
    error = capfd.readouterr().err
    assert told in error
    assert "Traceback" not in error
