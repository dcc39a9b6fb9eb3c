"""The command `headstart`: `headstart train data=...` is `python src/train.py data=...`, and so on."""

import ast
import os
import runpy
import sys
import textwrap
from typing import Any, TextIO

import headstart
from headstart.cli.conf_files import ENTRY_POINTS
from headstart.cli.typed_words import MARK, as_typed_here
from headstart.errors import nearest

PURPOSES = {
    "train": "trains a pretrained network with a new head on your data",
    "preview": "shows samples as a training with the same words sees them",
    "evaluate": "measures a trained run, and shows where it fails and why",
    "predict": "predicts the classes of files",
    "export": "writes one file that works without Headstart",
    "report": "writes a page about a run, and a model card",
    "compare": "compares runs, and tests which differences are significant",
    "serve": "opens a web page that classifies pictures or texts",
    "push": "uploads a run to the Hugging Face hub",
}
"""The commands in the order in which a person needs them; others follow, with the first words of their docstring."""


class _TranslatingStream:
    """A stream whose texts name the command `headstart`."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes the text."""
        return self.stream.write(as_typed_here(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def main() -> None:
    """Runs the entry point that the first word names."""
    commands = names()
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if first in ("--help", "-h"):
        print(overview(commands))
        return
    if first == "--version":
        print(f"headstart {headstart.__version__}")
        return
    if first not in commands:
        known = ", ".join(commands)
        sys.exit(_mistake(f"there is no command {first!r}{nearest(first, commands)} (it is one of {known})"))
    os.environ[MARK] = "1"
    # as if the file had been started: sweeps that continue, and Lightning's processes for several devices, start it
    if {"--help", "-h"} & set(sys.argv):
        sys.stdout = _TranslatingStream(sys.stdout)
    sys.argv = [str(ENTRY_POINTS / f"{first}.py"), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


def names() -> list[str]:
    """The commands: one for each entry point."""
    found = {file.stem for file in ENTRY_POINTS.glob("*.py")}
    return [name for name in PURPOSES if name in found] + sorted(found.difference(PURPOSES))


def overview(commands: list[str]) -> str:
    """The text of `headstart --help`."""
    lines = [f"  headstart {name:<10}{_purpose(name)}" for name in commands]
    return "\n".join(
        [
            "Headstart: transfer learning from one readable command.",
            "",
            *lines,
            "",
            "headstart <command> --help shows its settings. From Python: import headstart",
        ]
    )


def _purpose(name: str) -> str:
    if name in PURPOSES:
        return PURPOSES[name]
    text = ast.get_docstring(ast.parse((ENTRY_POINTS / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return textwrap.shorten(text.partition(".")[0], 57, placeholder=" ...")


def _mistake(message: str) -> int:
    from headstart.cli.run import USAGE

    sys.stderr.write(f"error: {message}\n")
    return USAGE
