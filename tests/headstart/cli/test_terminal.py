"""Messages in a terminal: above the bars, in lines of 80 columns, with colours if it has them."""

import io
import logging
import sys

import pytest
from terminal import Terminal

from headstart.cli.terminal import BEST, TerminalHandler
from headstart.progress import progress_bar

BAR = "checking:  50%|"


@pytest.fixture
def written(monkeypatch):
    """Writes a message to a stream on stderr and returns the stream."""

    def write(message, level=logging.INFO, stream=None, style="") -> io.StringIO:
        stream = stream or Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        record = logging.makeLogRecord({"msg": message, "levelno": level, **({"style": style} if style else {})})
        TerminalHandler(stream).handle(record)
        return stream

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return write


def test_a_message_moves_the_bar_down_and_the_bar_leaves_nothing(written, clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("checking", 40, "pictures") as bar:
        clock[0] += 2
        bar.update(20)
        written("no improvement", stream=terminal)
        message, shown = terminal.screen()
        assert message == "no improvement"
        assert shown.startswith(BAR)
    assert terminal.screen() == ["no improvement"]


@pytest.mark.parametrize("passed", [0.1, 2])
def test_a_bar_that_was_drawn_only_below_a_message_is_erased_too(written, clock, monkeypatch, passed):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("checking", 40, "pictures"):
        clock[0] += passed
        written("one", stream=terminal)
        assert len(terminal.screen()) == (1 if passed < 1 else 2), "no bar within the first second"
        written("two", stream=terminal)
    assert terminal.screen() == ["one", "two"]


def test_a_message_that_comes_while_a_bar_is_drawn_does_not_run_into_it(written, clock, monkeypatch):
    """As the message about Ctrl-C: tqdm notes the length of a bar only after it has written it."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("checking", 40, "pictures"):
        terminal.write("\rchecking:  50%|#####     | 20/40 [00:02<00:02]")
        written("SIGINT: stopping", stream=terminal)
        assert terminal.screen()[0] == "SIGINT: stopping"


def test_a_bar_below_one_that_is_not_drawn_yet_leaves_the_cursor_at_the_beginning(written, clock, monkeypatch):
    """As a long validation of a short epoch."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("epoch 1/3", 40, "batches"):
        clock[0] -= 10  # the delay of the outer bar is not over
        with progress_bar("validation", 40, "batches") as inner:
            clock[0] += 2
            inner.update()
        written(" 1/3  0.98", stream=terminal)
    assert terminal.screen() == [" 1/3  0.98"]


def test_lines_end_between_words_and_commands_and_paths_stay_whole(written):
    command = f"python src/evaluate.py run=/logs/{'a' * 70} split=val"
    lines = written(f"{'word ' * 30}\n  {'other ' * 20}\nagain with: {command}").getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines if line.strip() != command)
    assert f"  {command}" in lines
    assert lines[1].startswith("  word")
    assert lines[3].startswith("    other"), "what goes on is indented further"


def test_elsewhere_a_message_stays_one_line(written):
    message = "word " * 30 + "end"
    assert written(message, logging.WARNING, io.StringIO()).getvalue() == f"{message}\n"


def test_colours_only_where_they_are_wanted(written, monkeypatch):
    assert "\x1b[33m" in written("careful", logging.WARNING).getvalue(), "yellow"
    assert "32m" in written("1/3  0.98", style=BEST).getvalue(), "green"
    assert "\x1b" not in written("plain").getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    assert written("careful", logging.WARNING).getvalue() == "careful\n"
    assert "32m" not in written("1/3  0.98", style=BEST).getvalue()


def test_a_stream_that_is_closed_does_not_end_the_run(capsys):
    stream = io.StringIO()
    handler = TerminalHandler(stream)
    stream.close()
    handler.handle(logging.LogRecord("name", logging.INFO, "file", 1, "text", (), None))
    assert "ValueError" in capsys.readouterr().err
