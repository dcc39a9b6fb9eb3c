"""Messages in the words that a person types here: `headstart train`, or `python src/train.py` in a checkout.

Messages, help and docs are written for a checkout. Everything that is printed passes here, at the places where it
leaves the program.
"""

import os
import re
from importlib.metadata import PackageNotFoundError, requires

from headstart.cli.conf_files import INSTALLED

MARK = "HEADSTART_COMMAND"
"""The variable that says, also to child processes, that `headstart` was typed, not `python src/...`."""
SCRIPT = re.compile(r"python src/(\w+)\.py")
EXTRA = re.compile(r'pip install -e\s+"\.\[(\w+)\]"')


def as_typed_here(text: str) -> str:
    """A message with the commands that work here."""
    if INSTALLED:
        text = EXTRA.sub(lambda found: f"pip install {' '.join(packages_of(found[1]))}", text)
    return SCRIPT.sub(r"headstart \1", text) if INSTALLED or MARK in os.environ else text


def packages_of(extra: str) -> list[str]:
    """The packages that an extra of Headstart installs, from what the wheel says about itself.

    Not `headstart[extra]`: a package index may hold another package of this name.
    """
    try:
        stated = requires("headstart") or []
    except PackageNotFoundError:
        return [f"headstart[{extra}]"]
    belongs = re.compile(rf"extra == ['\"]{extra}['\"]")
    return [re.split(r"[^\w.-]", requirement)[0] for requirement in stated if belongs.search(requirement)]
