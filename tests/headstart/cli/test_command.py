"""The command `headstart`: the words of `src/*.py`, in messages that name the command."""

import logging
import sys

import pytest

import headstart
from headstart.cli import command, typed_words
from headstart.cli.conf_files import ENTRY_POINTS
from headstart.cli.typed_words import as_typed_here


@pytest.fixture
def typed(monkeypatch, capsys):
    """Types a command; returns exit code and what was written."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["headstart", *words])
        monkeypatch.setattr(sys, "stdout", sys.stdout)  # the command may replace it
        monkeypatch.setenv(typed_words.MARK, "1")
        # Hydra adds handlers that write to the streams of this test, which are closed after it
        monkeypatch.setattr(logging.root, "handlers", list(logging.root.handlers))
        code = 0
        try:
            command.main()
        except SystemExit as leaving:
            code = leaving.code or 0
        written = capsys.readouterr()
        return code, written.out + written.err

    return run


def test_every_entry_point_is_a_command():
    assert set(command.names()) == {file.stem for file in ENTRY_POINTS.glob("*.py")} >= set(command.PURPOSES)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_overview_fits_a_terminal(typed, words):
    code, text = typed(*words)
    assert code == 0
    assert all(f"headstart {name}" in text for name in command.names())
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_version(typed):
    assert typed("--version") == (0, f"headstart {headstart.__version__}\n")


def test_a_misspelt_command_gets_the_nearest(typed):
    code, text = typed("trian")
    assert code == 2
    assert text.startswith("error: there is no command 'trian', did you mean 'train'?")


def test_a_mistake_has_the_exit_code_and_the_message_of_the_script(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = typed("evaluate", "run=nowhere")
    assert code == 2
    assert "run=nowhere: no such file or folder" in text


def test_in_a_checkout_the_words_stay():
    assert as_typed_here("python src/train.py seed=1") == "python src/train.py seed=1"
    assert as_typed_here('pip install -e ".[onnx]"') == 'pip install -e ".[onnx]"'


def test_messages_name_the_command_that_was_typed(monkeypatch):
    monkeypatch.setenv(typed_words.MARK, "1")
    assert as_typed_here("a: python src/train.py seed=1") == "a: headstart train seed=1"


def test_an_installed_package_names_the_packages_of_an_extra(monkeypatch):
    stated = ["torch>=2.6", 'pyarrow>=14; extra == "parquet"', "onnx>=1.16; extra == 'onnx'", "onnx>=1; extra == 'dev'"]
    monkeypatch.setattr(typed_words, "INSTALLED", True)
    monkeypatch.setattr(typed_words, "requires", lambda name: stated)
    assert as_typed_here('needs pip install -e ".[parquet]", or') == "needs pip install pyarrow, or"
    assert as_typed_here('needs pip install -e\n  ".[onnx]"') == "needs pip install onnx"
