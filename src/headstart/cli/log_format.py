"""The format of log messages."""

import logging

from headstart.errors import printable


class PrintableFormatter(logging.Formatter):
    """Names in a message cannot control the terminal. `conf/hydra/job_logging/to_stderr.yaml` names this class."""

    def format(self, record: logging.LogRecord) -> str:
        """The message without control characters."""
        return printable(super().format(record))
