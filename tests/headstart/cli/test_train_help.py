"""`python src/train.py --help`, and with the name of a group or an option."""

import re
import sys

import pytest

from headstart.cli import train_help
from headstart.cli.options import groups, run_options
from headstart.errors import UsageError


def test_all_groups_and_options_are_there_the_most_used_first_in_80_columns():
    text = train_help.train_help(["--help"])
    assert [line for line in text.splitlines() if len(line) > 80] == []
    used = text.partition("Used most")[2].partition("The run")[0]
    assert re.findall(r"^  ([\w.]+)=", used, re.M) == list(train_help.MOST_USED)
    named = set(re.findall(r"^  ([\w.]+)(?:=| |$)", text, re.M))
    every = {option.name for group in groups() for option, _ in group.options} | {each.name for each in run_options()}
    assert every - named == set()
    for group in groups():
        assert f"\n{group.name}: {group.comment}"[:70] in text
        assert all(choice.name in text for choice in group.choices)


def test_the_most_used_options_are_allowed_together(composed):
    composed(*(f"{name}={value}" for name, value in train_help.MOST_USED.items()))


def test_one_group_says_what_each_choice_means():
    text = train_help.train_help(["--help", "finetuning=full"])
    assert "  probe                     linear probe: a closed-form head" in text
    assert "  finetuning.every=1        epochs between two steps (gradual)" in text
    assert "optimizer" not in text


def test_the_choices_that_have_an_option_follow_unless_all_have_it():
    assert "areas; 0: no\n                            CutMix\n" in train_help.train_help(["--help", "mixing"])


def test_one_option_and_a_misspelt_one():
    assert train_help.train_help(["optimizer.lr=3", "-h"]).startswith(
        "  optimizer.lr=1e-3         highest learning rate"
    )
    with pytest.raises(UsageError, match="did you mean 'finetuning'"):
        train_help.train_help(["--help", "finetunin"])


@pytest.mark.parametrize(("variable", "coloured"), [("OTHER", True), ("NO_COLOR", False)])
def test_names_are_bold_in_a_terminal_only(variable, coloured, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(variable, "1")
    train_help.print_help(["--help", "mixing"])
    assert "\033" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    train_help.print_help(["--help", "mixing"])
    text = capsys.readouterr().out
    assert ("\033[1m  mixing.mixup\033[0m=" in text) is coloured
    plain = re.sub(r"\033\[\d+m", "", text)
    assert plain == train_help.train_help(["--help", "mixing"])
