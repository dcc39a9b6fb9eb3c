"""Runs an entry point as a process: exit codes, signals, and libraries that keep quiet."""

import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from headstart.cli import terminal
from headstart.cli.allocator import keep_freed_memory
from headstart.cli.failures import failure_in_words
from headstart.cli.messages import explain
from headstart.cli.overrides import translate_null_choices
from headstart.cli.own_conf import announcement, use_own_conf
from headstart.cli.typed_words import as_typed_here
from headstart.runs.directory import Run

# Threads that wait for work must not keep their core busy: with two processes on two cores, training was five times
# slower. torch reads this when it loads its thread pool, so it must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# On import, not in run_entry_point(): a loader worker that is spawned, not forked, imports the entry point only
keep_freed_memory()

log = logging.getLogger(__name__)
T = TypeVar("T")
USAGE, FAILURE, INTERRUPTED, TERMINATED = 2, 1, 130, 143
QUIETER = ("pytorch_lightning.utilities.rank_zero", "lightning_fabric")
"""Loggers whose messages need no action."""
NEED_NO_ACTION = (
    "LeafSpec", "in eval mode at the start", "not have many workers", "than the logging interval",
    "exists and is not empty", "IProgress not found", "(posi|nega)tive samples in targets, ",
)  # fmt: skip
"""Warnings that need no action. The last one is of torchmetrics: a class without samples gets a warning of our own."""


class JobFailed(BaseException):
    """Carries the exception of a job past Hydra, which would print a line of its own before our message."""


class RaiseAtOnce(Callback):
    """Raises the exception of a job that failed; in a sweep Hydra keeps it, so that the other jobs run.

    Attributes:
        begun: the new directory of the run of this process; None before its start, for a sweep, a resumed run, or an
            entry point that has no directory.
    """

    begun: ClassVar[Path | None] = None

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Notes the directory that Hydra has just made; not one that had files before."""
        if config.hydra.mode is RunMode.RUN and config.hydra.output_subdir is not None:
            folder = Path(config.hydra.runtime.output_dir)
            if {each.name for each in folder.iterdir()} <= {config.hydra.output_subdir, f"{config.hydra.job.name}.log"}:
                RaiseAtOnce.begun = folder

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Raises `JobFailed`, because Hydra only warns of an `Exception` in a callback."""
        if job_return.status is JobStatus.FAILED and config.hydra.mode is RunMode.RUN:
            raise JobFailed from job_return._return_value


def run_entry_point(main: Callable[[], Any], config_name: str) -> None:
    """Calls a Hydra main function and exits.

    Exit codes: 0 done, 1 failed, 2 a mistake on the command line, 130 Ctrl-C, 143 SIGTERM.
    `HYDRA_FULL_ERROR=1` shows the traceback of a mistake, too.
    """
    RaiseAtOnce.begun = None
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and exiting
    quiet()
    end_with_parent()
    use_own_conf(config_name)
    if _is_first_process() and (note := announcement()):
        sys.stderr.write(f"{note}\n")
    # argparse accepts -m before the overrides only
    sys.argv[1:] = sorted(translate_null_choices(sys.argv[1:]), key=lambda word: word not in ("-m", "--multirun"))
    try:
        raising_as_before(main)
    except KeyboardInterrupt:
        remove_worthless_run(interrupted=True)
        sys.exit(INTERRUPTED)
    except SystemExit as leaving:
        remove_worthless_run(interrupted=True)
        # Lightning turns Ctrl-C into exit code 1, and SIGTERM while it tests into 0
        if type(leaving).__name__ == "SIGTERMException":
            sys.exit(TERMINATED)
        sys.exit(INTERRUPTED if isinstance(leaving.__context__, KeyboardInterrupt) else leaving.code)
    except BrokenPipeError:  # as with `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except Exception as error:
        mistake = explain(error, config_name, sys.argv[1:])
        message = mistake or failure_in_words(error, config_name)
        if full or message is None:
            traceback.print_exception(error)
        terminal.say(f"\nerror: {as_typed_here(str(message or error))}", terminal.ERROR)
        remove_worthless_run()
        sys.exit(FAILURE if mistake is None else USAGE)


def remove_worthless_run(interrupted: bool = False) -> None:
    """Removes the new directory of a run that failed before it wrote a checkpoint or metrics.

    Args:
        interrupted: the run did not fail: it can be continued if its config is written.
    """
    if RaiseAtOnce.begun is None:
        return
    run = Run(RaiseAtOnce.begun)
    if not (interrupted and run.exists):
        run.remove_if_worthless()


def raising_as_before(main: Callable[[], T]) -> T:
    """Calls the main function; the exception of a job is raised as it was before Hydra."""
    carried: BaseException | None = None
    try:
        return main()
    except JobFailed as failed:
        carried = failed.__cause__
    assert carried is not None
    raise carried  # outside of `except`, which would replace its context


def announce_loading() -> None:
    """Says why nothing happens for some seconds: the imports behind it load torch and Lightning."""
    if "torch" not in sys.modules:
        log.info("loading PyTorch")


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises an exception as Ctrl-C does, so that open files are closed and temporary ones removed."""
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def quiet() -> None:
    """Hides messages that libraries print at every start and that need no action; warnings and errors stay.

    Warnings become messages, so that they do not collide with a progress bar.
    """
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}"
    for name in QUIETER:
        logging.getLogger(name).setLevel(logging.WARNING)
    if not _is_first_process():
        logging.disable(logging.WARNING)  # of several processes, only the first one prints
    for message in NEED_NO_ACTION:
        warnings.filterwarnings("ignore", f".*{message}.*")


def _is_first_process() -> bool:
    """Whether this is the only process of a run, or the first of several."""
    return next((os.environ[key] for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if key in os.environ), "0") == "0"


def end_with_parent() -> None:
    """Makes a process that Lightning started (DDP) exit within a second after the process that started it.

    Otherwise, if the first process is killed before the two are connected, or while the second waits for it, the second
    waits for half an hour and keeps its GPU.
    """
    if not any(word.startswith("hydra.job.name=train_ddp_process_") for word in sys.argv):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(FAILURE)

    threading.Thread(target=watch, daemon=True).start()
