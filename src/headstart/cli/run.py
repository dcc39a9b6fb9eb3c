"""How the entry points meet a person: mistakes explained in a sentence, exit codes that tell scripts the truth."""

import errno
import logging
import os
import shlex
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
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headstart.cli.allocator import keep_freed_memory
from headstart.errors import UsageError, nearest

# Threads that wait for work must not keep their core busy: two processes on two cores were five times slower for it.
# Read when torch loads its thread pool, so it must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# On import, not in run(): a loader worker that is spawned instead of forked imports the entry point but does not run it
keep_freed_memory()

CONF = Path(__file__).parents[3] / "conf"
# Lines of Hydra's messages that tell a person nothing, or the wrong thing
NOISE = (
    "object_type=", "reference_type=", "full_key:", "To append", "Config search path", "provider=", "invalid literal",
)  # fmt: skip
USAGE, FAILURE, INTERRUPTED, TERMINATED = 2, 1, 130, 143


def run(main: Callable[[], Any], config_name: str) -> None:
    """Calls a Hydra main function and leaves the process.

    Exit codes: 0 done, 1 failed, 2 a mistake to mend, 130 Ctrl-C, 143 SIGTERM.
    `HYDRA_FULL_ERROR=1` shows the traceback of mistakes too.
    """
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its errors on instead of printing and exiting
    quiet()
    end_with_parent()
    # argparse would take -m before the overrides only
    sys.argv[1:] = sorted(in_hydras_spelling(sys.argv[1:]), key=lambda word: word not in ("-m", "--multirun"))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as leaving:
        # Lightning turns Ctrl-C into exit code 1, and SIGTERM while it tests into 0
        if type(leaving).__name__ == "SIGTERMException":
            sys.exit(TERMINATED)
        sys.exit(INTERRUPTED if isinstance(leaving.__context__, KeyboardInterrupt) else leaving.code)
    except BrokenPipeError:  # as with `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except Exception as error:
        message = explain(error, config_name, sys.argv[1:])
        no_room = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or (message is None and not no_room):  # where a disk is full the code is of no interest
            traceback.print_exc()
        sys.stderr.write(f"\nerror: {message or error}\n")
        sys.exit(FAILURE if message is None else USAGE)


def in_hydras_spelling(words: list[str]) -> list[str]:
    """The command line with `experiment=null` in Hydra's spelling; a null that is the default is left out."""
    defaults = {"experiment=null": ["~experiment"], "hparams_search=null": [], "debug=null": []}
    return [spelt for word in words for spelt in defaults.get(word, [word])]


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM leaves as Ctrl-C does, by an exception: what is open is closed."""
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to the main thread alone
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
    """Leaves out what libraries say at every start and nobody acts on; warnings and errors stay."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    rank = next((os.environ[key] for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if key in os.environ), "0")
    if rank != "0":
        logging.disable(logging.WARNING)  # the first process of several speaks for all
    for message in ("LeafSpec", "in eval mode at the start", "not have many workers", "than the logging interval",
                    "exists and is not empty"):  # fmt: skip
        warnings.filterwarnings("ignore", f".*{message}.*")


def end_with_parent() -> None:
    """Ends a process that Lightning started soon after the one that started it, however that ended.

    Killed before the two have met, or while one waits for the other, the first would leave the second waiting for half
    an hour, its GPU taken.
    """
    if not any(word.startswith("hydra.job.name=train_ddp_process_") for word in sys.argv):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(FAILURE)

    threading.Thread(target=watch, daemon=True).start()


def explain(error: BaseException, config_name: str, arguments: list[str]) -> str | None:
    """What to tell the person who typed `arguments`, or None when the fault is not theirs."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, UsageError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, OverrideParseException):
            return f"{cause.override}: {_in_quotes(cause.override)}"
    for cause in chain:
        if type(cause).__name__ == "MisconfigurationException":  # by name: Lightning is slow to import
            return str(cause)
    if str(error).startswith("Config group override"):  # Hydra raises a bare ValueError for `scheduler=null`
        empty = [a for a in arguments if a.split("=", 1)[-1] in ("null", "") and "." not in a.split("=")[0]]
        return f"{' '.join(empty)}: choose a file of conf/{empty[0].split('=')[0]}" if empty else str(error)
    if isinstance(error, (HydraException, OmegaConfBaseException)) and not _has_foreign_cause(chain):
        lines = dict.fromkeys(line.strip() for cause in chain for line in str(cause).splitlines() if line.strip())
        told = "\n  ".join(line for line in lines if not line.startswith(NOISE) and "$VALUE" not in line)
        return told + _suggestions(config_name, arguments)
    return None


def _in_quotes(override: str) -> str:
    """What to type instead of a value that has characters of Hydra's own grammar in it."""
    key, equals, value = override.partition("=")
    if not equals:
        return "give a setting as key=value"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    typed = shlex.quote(f'{key}="{escaped}"')
    return f"Hydra cannot read this value; in quotes of its own it is taken as it is: {typed}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _has_foreign_cause(chain: list[BaseException]) -> bool:
    """Whether something else than the config system failed underneath, as when a constructor raises."""
    if any(isinstance(cause, InstantiationException) for cause in chain):
        return not all(isinstance(cause, (HydraException, OmegaConfBaseException)) for cause in chain)
    ours = (HydraException, OmegaConfBaseException, AttributeError, KeyError, ValueError)
    return not all(isinstance(cause, ours) for cause in chain)


def _suggestions(config_name: str, arguments: list[str]) -> str:
    """`did you mean` for every override whose key or choice does not exist."""
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    groups = {str(p.parent.relative_to(CONF)): None for p in CONF.rglob("*.yaml") if p.parent != CONF}
    choices = [o for o in overrides if o.split("=")[0] in groups]
    told = []
    for choice in choices:
        group, name = choice.split("=", 1)
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        told += [
            f"{choice}: conf/{group} has no such file{nearest(n, options)}"
            for n in name.split(",") if n not in [*options, "null"]
        ]  # fmt: skip
    if not told:
        keys = sorted(_known_keys(config_name, [c for c in choices if "," not in c]) | set(groups))
        for override in overrides:
            key, _, value = override.lstrip("+~").partition("=")
            if key not in keys:
                # a word that names a file of some group says which group was meant
                meant = [group for group in groups if (CONF / group / f"{value}.yaml").is_file()]
                hint = nearest(key, meant) or nearest(key, keys)
                # Hydra's own word for a setting that a library's part has but our file does not show
                plus = (
                    f" (a setting that the file leaves out: +{override})" if "." in key and override[0] != "+" else ""
                )
                told.append(f"{override}: there is no {key!r}{hint}{plus}")
    return "".join(f"\n  {line}" for line in told)


def _known_keys(config_name: str, choices: list[str]) -> set[str]:
    """Every dotted key of the config with these group choices."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return set(_dotted(compose(config_name, choices)))
    except (HydraException, OmegaConfBaseException):
        return set()


def _dotted(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):
            yield from _dotted(node._get_node(key), f"{prefix}{key}.")
