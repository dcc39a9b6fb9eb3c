"""The format of log messages."""

import logging

from headstart.cli.typed_words import as_typed_here
from headstart.errors import printable


class PrintableFormatter(logging.Formatter):
    """Names in a message cannot control the terminal. `conf/hydra/job_logging/to_stderr.yaml` names this class."""

    def format(self, record: logging.LogRecord) -> str:
        """The message without control characters, in the words of the command that is used here."""
        return printable(as_typed_here(super().format(record)))
