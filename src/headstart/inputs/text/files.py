"""Texts in files and in memory."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from headstart.errors import UsageError
from headstart.inputs.base import Unlabelled, UnreadableInput
from headstart.inputs.opening import open_file

MOST_BYTES = 10**8
"""Largest size of a text file."""
TOO_LARGE = f"larger than {MOST_BYTES / 1e6:g} MB"


def decoded(source: str | BinaryIO) -> str:
    """The content of a UTF-8 file or stream; a byte order mark is removed.

    Raises:
        UnreadableInput: it cannot be opened, is too large or is not UTF-8.
    """
    if isinstance(source, str):
        with open_file(source) as stream:
            return decoded(stream)
    content = source.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UnreadableInput(TOO_LARGE)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableInput(f"not UTF-8 (byte {error.start})") from error


def usable(text: str) -> str:
    """The text, if there is any.

    Raises:
        UnreadableInput: it is empty.
    """
    if not text.strip():
        raise UnreadableInput("empty")
    return text


def lines_of(source: str | BinaryIO) -> Iterator[Unlabelled]:
    """Each line of a UTF-8 file or stream as one text; lines that cannot be used have a reason.

    Raises:
        UsageError: the file cannot be opened.
    """
    if isinstance(source, str):
        try:
            with open_file(source) as stream:
                yield from _lines(stream, f"{source}:")
        except UnreadableInput as error:
            raise UsageError(f"input={source}: {error.reason}") from error
    else:
        yield from _lines(source, "line ")


def _lines(stream: BinaryIO, prefix: str) -> Iterator[Unlabelled]:
    for number, line in enumerate(stream, start=1):
        name = f"{prefix}{number}"
        try:
            yield Unlabelled(name, usable(decoded(io.BytesIO(line.rstrip(b"\r\n")))))
        except UnreadableInput as error:
            yield Unlabelled(name, reason=error.reason)


def digest(text: str) -> str:
    """A hash of a text, 40 hex digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


class Texts:
    """Loads texts from memory.

    Args:
        texts: one per sample.
    """

    def __init__(self, texts: list[str]):
        self.texts = texts

    def __call__(self, index: int) -> str:
        """Text `index`."""
        return self.texts[index]

    def fingerprint(self) -> list[Any]:
        """The texts are hashed themselves, so nothing else matters."""
        return [type(self)]
