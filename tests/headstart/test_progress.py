import sys

import pytest
from pytorch_lightning.utilities import rank_zero_only
from terminal import Terminal
from tqdm import tqdm

from headstart import progress
from headstart.progress import progress_bar


@pytest.fixture
def terminal_on_stderr(monkeypatch):
    """To be called in the test itself: pytest replaces `sys.stderr` between fixtures and the test."""

    def replace() -> Terminal:
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        return terminal

    return replace


def test_appears_after_a_second_with_the_time_left_and_is_gone_when_done(terminal_on_stderr, clock, capsys):
    terminal = terminal_on_stderr()
    with progress_bar("Checking", 40, "pictures") as bar:
        clock[0] += 0.9
        bar.update(10)
        assert terminal.getvalue() == ""
        clock[0] += 1.1
        bar.update(10)
        (line,) = terminal.screen()
        assert line.startswith("Checking:  50%|")
        assert "20/40" in line
        assert "00:02<00:02" in line
        assert "pictures/s" in line
    assert terminal.screen() == []
    assert capsys.readouterr().out == ""


def test_work_that_is_done_within_a_second_writes_nothing(terminal_on_stderr, clock):
    terminal = terminal_on_stderr()
    with progress_bar("Checking", 40, "pictures") as bar:
        clock[0] += 0.9
        bar.update(40)
    assert terminal.getvalue() == ""


def test_bytes_have_a_speed_and_those_of_an_earlier_run_do_not_count_for_it(terminal_on_stderr, clock):
    terminal = terminal_on_stderr()
    with progress_bar("Downloading", 825_000_000, "B", initial=700_000_000) as bar:
        clock[0] += 2
        bar.update(50_000_000)
        (line,) = terminal.screen()
    assert "750M/825M" in line
    assert "25.0MB/s" in line


def test_an_unknown_total_shows_the_count(terminal_on_stderr, clock):
    terminal = terminal_on_stderr()
    with progress_bar("Predicting", None, "pictures") as bar:
        clock[0] += 2
        bar.set_postfix_str("3 unreadable", refresh=False)
        bar.update(8)
        assert terminal.screen() == ["Predicting: 8 pictures [00:02,  4.00 pictures/s, 3 unreadable]"]


def test_two_bars_have_a_line_each(terminal_on_stderr, clock):
    """As when frozen layers are computed in the middle of Lightning's training loop."""
    terminal = terminal_on_stderr()
    with tqdm(total=10, desc="Epoch 0") as outer, progress_bar("Frozen layers", 10, "samples") as bar:
        clock[0] += 2
        outer.update()
        bar.update()
        assert [line.split(":")[0] for line in terminal.screen()] == ["Epoch 0", "Frozen layers"]


@pytest.mark.parametrize("why", ["no terminal", "second process", "hidden"])
def test_hidden(terminal_on_stderr, clock, monkeypatch, capsys, why):
    terminal = terminal_on_stderr()
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    if why == "no terminal":
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    if why == "second process":
        monkeypatch.setattr(rank_zero_only, "rank", 1)
    with progress_bar("Checking", 40, "pictures", hidden=why == "hidden") as bar:
        clock[0] += 2
        bar.update(10)
    assert terminal.getvalue() == capsys.readouterr().out == ""
