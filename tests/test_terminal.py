"""A run as a person sees it in a terminal of 80 x 24, and as a program gets it through a pipe."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pytest
from terminal import Terminal

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
EPOCHS = 3
ROW = re.compile(r"^ *(\d)/3(?: +\d\.\d{4}){4} +\S+ +\d:\d\d +\d:\d\d( +best)?$", re.MULTILINE)
COMMAND = [
    sys.executable, str(ROOT / "src/train.py"), "data=fake", "data.num_samples=600", "data.image_size=32",
    "model.image_size=32", "data.batch_size=2", "data.num_workers=0", "trainer=cpu", f"trainer.max_epochs={EPOCHS}",
    "trainer.precision=32-true", "finetuning=full", "finetuning.patience=null", "optimizer.lr=0.01",
]  # fmt: skip


def recorded(command: list[str], **environment: str) -> str:
    """Everything that a command writes to its terminal."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(command[0], command, {**os.environ, "TERM": "xterm-256color", **environment})
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    written, end = b"", time.monotonic() + 300
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                written += os.read(terminal, 65536)
            except OSError:  # the command has ended
                break
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0, written.decode()
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines that stay."""
    terminal = Terminal()
    terminal.write(re.sub(r"\x1b\[[0-9;]*m", "", written))
    return terminal.screen()


@pytest.fixture(scope="module")
def in_terminal(tmp_path_factory):
    run = tmp_path_factory.mktemp("terminal") / "run"
    return run, recorded([*COMMAND, f"hydra.run.dir={run}"])


@pytest.fixture(scope="module")
def in_pipe(tmp_path_factory):
    run = tmp_path_factory.mktemp("pipe") / "run"
    done = subprocess.run([*COMMAND, f"hydra.run.dir={run}"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return run, done


def test_each_epoch_stays_on_the_screen_and_no_line_collides_with_a_bar(in_terminal):
    run, written = in_terminal
    lines = screen(written)
    assert "batches/s" in written, "no bar was shown: the epochs are too short for this test"
    assert [match[1] for match in map(ROW.match, lines) if match] == ["1", "2", "3"]
    assert not [line for line in lines if "|" in line or "batches" in line], "bars are erased"
    log = (run / "train.log").read_text().splitlines()
    shown = set(lines)
    assert [line for line in log if len(line) <= 80 and line.strip() and line.rstrip() not in shown] == []


def test_the_screen_is_80_columns_wide_and_metrics_are_told_once(in_terminal):
    run, written = in_terminal
    lines = screen(written)
    assert [line for line in lines if len(line) > 80 and str(run) not in line] == []
    assert sum(line.startswith("acc ") for line in lines) == 1
    assert "test/acc: " not in written
    assert re.search(r"^acc +\d\.\d{4} +\d\.\d{4}$", "\n".join(lines), re.MULTILINE), "val and test"


def test_the_first_word_is_told_before_torch_is_loaded(in_terminal):
    assert screen(in_terminal[1])[0] == "loading PyTorch"


def test_a_pipe_gets_the_same_lines_without_bars_and_colours(in_pipe):
    run, done = in_pipe
    assert ROW.findall(done.stderr)
    assert [number for number, _ in ROW.findall(done.stderr)] == ["1", "2", "3"]
    assert [number for number, _ in ROW.findall((run / "train.log").read_text())] == ["1", "2", "3"]
    assert "\x1b" not in done.stderr + done.stdout
    assert "batches" not in done.stderr
    assert re.search(r"^test/acc: \d\.\d{4}$", done.stdout, re.MULTILINE)
    assert "test/acc" not in done.stderr, "metrics are printed once"
