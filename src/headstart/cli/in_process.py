"""Runs an entry point's work inside a running Python program: the same config, exceptions instead of exit codes."""

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.cli.failures import failure_in_words
from headstart.cli.messages import explain
from headstart.cli.overrides import translate_null_choices
from headstart.cli.own_conf import announcement, use_own_conf
from headstart.cli.run import INTERRUPTED, QUIETER, RaiseAtOnce, quiet, raising_as_before, remove_worthless_run
from headstart.cli.typed_words import as_typed_here
from headstart.errors import Failure, UsageError

T = TypeVar("T")
DOTTED = re.compile(r"(?<![\w.+~])([a-z]\w*(?:\.[a-z_]\w*)+)=")


def call(config_name: str, function: Callable[[DictConfig], T], words: Sequence[str]) -> tuple[T, Path]:
    """Calls a function with the config that a command line gives, as Hydra does for an entry point.

    Messages go to stderr and, for training, into the run's log. What the program has set up itself stays as it was: its
    log handlers, and its own Hydra.

    Args:
        config_name: name of the entry point, such as `train`.
        function: does the work.
        words: the command line, such as `model=resnet50`.

    Returns:
        the result of the function, and the directory of the run.

    Raises:
        UsageError: a mistake in the words; the message says what is allowed.
        Failure: something went wrong that is no fault of the code.
        KeyboardInterrupt: Ctrl-C, or the stop button of a notebook.
    """
    words = translate_null_choices(list(words))
    RaiseAtOnce.begun = None
    with _own_logging(), _libraries_ready(config_name), _own_hydra(config_name) as hydra:
        if note := announcement():
            sys.stderr.write(f"{note}\n")
        try:
            job = raising_as_before(lambda: hydra.run(config_name, function, words))
        except KeyboardInterrupt:
            remove_worthless_run(interrupted=True)
            raise
        except SystemExit as leaving:
            remove_worthless_run(interrupted=True)
            # Ctrl-C, which Lightning and `callbacks/interruption.py` turn into exit codes
            if leaving.code == INTERRUPTED or isinstance(leaving.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        except Exception as error:
            remove_worthless_run()
            _raise_in_words(error, config_name, words)
            raise
        assert job.hydra_cfg is not None
        return job.return_value, Path(job.hydra_cfg.hydra.runtime.output_dir)


@contextmanager
def _libraries_ready(config_name: str) -> Iterator[None]:
    resolvers.register()
    quiet()
    use_own_conf(config_name)
    try:
        yield
    finally:
        use_own_conf("")


@contextmanager
def _own_hydra(config_name: str) -> Iterator[Hydra]:
    """Hydra for this call; a Hydra that the program uses itself is there again afterwards."""
    before, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().hydra = None
    try:
        with initialize_config_dir(str(CONF), config_name, version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            yield hydra
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = before, config


@contextmanager
def _own_logging() -> Iterator[None]:
    """Hydra replaces the handlers of the root logger, and we hide warnings; afterwards all is as before."""
    root = logging.getLogger()
    handlers, level, form = list(root.handlers), root.level, warnings.formatwarning
    disabled, levels = logging.root.manager.disable, {name: logging.getLogger(name).level for name in QUIETER}
    # Hydra configures logging anew, and Python then closes all handlers that it finds in these two
    known = dict(logging._handlers), list(logging._handlerList)
    logging._handlers.clear()
    logging._handlerList.clear()
    captured = warnings.showwarning.__module__ == "logging"
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logging.captureWarnings(captured)
        warnings.formatwarning = form
        for handler in set(root.handlers).difference(handlers):
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging._handlers.update(known[0])
        logging._handlerList.extend(known[1])
        logging.disable(disabled)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


def _raise_in_words(error: Exception, config_name: str, words: list[str]) -> None:
    """Raises a UsageError or a Failure with the message of the command; returns for any other exception."""
    if message := explain(error, config_name, words):
        raise UsageError(in_python(as_typed_here(message))) from None
    if message := failure_in_words(error, config_name):
        raise Failure(as_typed_here(message)) from error


def in_python(message: str) -> str:
    """A message of the command line, with a hint how its first dotted word is written in Python."""
    dotted: Any = DOTTED.search(message)
    return f"{message}\n(in Python, write __ for a dot: {dotted[1].replace('.', '__')}=...)" if dotted else message
