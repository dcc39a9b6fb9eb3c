"""What a person sees in a terminal: messages, tables and errors, in 80 columns, with colours if it has them."""

import logging
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from headstart.errors import printable
from headstart.progress import above_bars

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MOST_COLUMNS = 100
"""Longer lines are hard to read, also if the terminal is wider."""
COLUMNS_OF_A_FILE = 200
BEST, HEADER, ERROR = "bold green", "dim", "red"
COMMAND = re.compile(r"(?:python src/\S+|headstart \w+)(?: [^\s=]+=\S+)*")
NO_BREAK = "\xa0"
"""A space at which no line ends."""
STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class TerminalHandler(logging.StreamHandler):
    """Writes messages above the progress bars. In a terminal, lines end between words and warnings have a colour.

    A message may choose its style: `log.info(text, extra={"style": BEST})`. Elsewhere (a file, a pipe, a notebook)
    messages are written as they are.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one message; a terminal that is gone does not end the run."""
        try:
            if self.stream.isatty():
                say(self.format(record), getattr(record, "style", STYLES.get(record.levelno, "")))
                return
            with above_bars():
                super().emit(record)
        except Exception:
            self.handleError(record)


def say(text: str, style: str = "") -> None:
    """Writes a text to stderr, above the progress bars. Control characters become `?`."""
    from rich.text import Text

    text = printable(text)
    with above_bars():
        _console().print(Text(wrapped(text) if sys.stderr.isatty() else text, style), soft_wrap=True)


def wrapped(text: str) -> str:
    """The text in lines as long as the terminal is wide; paths and commands stay whole, so that one can copy them."""
    width = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    lines = text.split("\n")
    return "\n".join(line if len(line) <= width else _in_lines(line, width) for line in lines)


def _in_lines(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    whole = COMMAND.sub(lambda command: command[0].replace(" ", NO_BREAK), line)
    lines = textwrap.fill(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines.replace(NO_BREAK, " ")


def show(table: "Table", to_stdout: bool = False) -> None:
    """Prints a table to stderr. Names are shown as they are: brackets (`[stem]`) and colons are no markup.

    Only control characters become `?`.
    """
    from rich.box import SIMPLE_HEAD

    table.title = printable(str(table.title or "")) or None
    table.title_justify = "left"
    for column in table.columns:
        column._cells = [printable(cell) if isinstance(cell, str) else cell for cell in column.cells]
    table.box, table.show_edge, table.pad_edge = SIMPLE_HEAD, False, False
    with above_bars():
        _console(to_stdout).print("", table, "", sep="\n")


def _console(to_stdout: bool = False) -> "Console":
    """A console of rich: it knows NO_COLOR and the abilities of the terminal."""
    from rich.console import Console

    stream = sys.stdout if to_stdout else sys.stderr
    width = None if stream.isatty() else COLUMNS_OF_A_FILE
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)
