"""Failures of the machine or of files in words: what happened, and what to change. They are no faults of the code.

By hand, because torch raises a `RuntimeError` for all of them, and only its text tells which one it is.
"""

import errno
import re
from collections.abc import Iterable

from headstart.errors import Failure, causes

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)

SMALLER_BATCHES = {
    "train": "data.batch_size=<half of now>; trainer.accumulate_grad_batches=2 then keeps the result nearly the same. "
    "A smaller model.image_size or trainer.precision=bf16-mixed helps, too",
    "predict": "batch_size=8",
    "evaluate": "data.batch_size=8",
    "export": "data.batch_size=8",
}
"""Entry point -> what to type for a smaller batch."""


def failure_in_words(error: BaseException, config_name: str) -> str | None:
    """The message about an expected failure; None for any other exception.

    Args:
        error: the exception, with its causes.
        config_name: name of the entry point, such as `train`.
    """
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, Failure):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return str(cause)
        if isinstance(cause, OSError) and cause.errno in NO_PERMISSION:
            elsewhere = " For another place type paths.logs=<folder>" if config_name == "train" else ""
            return f"{cause.filename}: {cause.strerror}.{elsewhere}"
    return _in_words([f"{type(cause).__name__}: {cause}" for cause in chain], config_name)


def _in_words(texts: Iterable[str], config_name: str) -> str | None:
    for text in texts:
        if re.search(r"OutOfMemoryError|MemoryError|can't allocate memory|out of memory", text):
            smaller = SMALLER_BATCHES.get(config_name)
            return "the memory is full" + (f". Try a smaller batch: {smaller}" if smaller else f": {_last_line(text)}")
        if re.search(r"DataLoader worker .*(exited unexpectedly|is killed by signal)|insufficient shared memory", text):
            return (
                "a process that loads samples was ended by the system, mostly because memory is short. Try "
                "data.num_workers=0; in a container, more shared memory (docker run --shm-size=8g) helps"
            )
        if "Expected more than 1 value per channel" in text:
            return (
                "BatchNorm cannot be trained on a batch of one sample: type data.batch_size=8, or "
                "finetuning.batch_norm=frozen"
            )
        if re.match(r"Unreadable\w+:", text):
            again = "continue with resume=last" if config_name == "train" else "type the command again"
            return (
                f"{_last_line(text).partition(': ')[2]}. It could be read at the start of the command. Restore or "
                f"remove it, and {again}"
            )
    return None


def _last_line(text: str) -> str:
    """The last line: torch puts the traceback of a loader process before the message."""
    return text.strip().splitlines()[-1]
