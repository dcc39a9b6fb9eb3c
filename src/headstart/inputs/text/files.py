"""Texts in files and in memory."""

import hashlib
import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from headstart.errors import UsageError
from headstart.inputs.base import Unlabelled, UnreadableInput
from headstart.inputs.opening import HALF_CHARACTER, SAVE_AS_UTF8, UTF16_MARKS, open_file

MOST_BYTES = 10**8
"""Largest size of a text file."""
TOO_LARGE = f"larger than {MOST_BYTES / 1e6:g} MB"
WITHOUT_LINES = (".json", ".xlsx", ".xls", ".ods", ".docx", ".doc", ".odt", ".pdf", ".html")
"""Endings of files whose lines are no texts."""


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
    if content.startswith(UTF16_MARKS):
        raise UnreadableInput(SAVE_AS_UTF8)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableInput(f"not UTF-8 (byte {error.start})") from error


def usable(text: str) -> str:
    """The text, if there is any.

    Raises:
        UnreadableInput: it is empty, or has a NUL character or half a character.
    """
    if not text.strip():
        raise UnreadableInput("empty")
    if "\0" in text:
        raise UnreadableInput("holds a NUL character; if it is from a file in UTF-16, save that as UTF-8")
    if re.search("[\ud800-\udfff]", text):
        raise UnreadableInput(HALF_CHARACTER)
    return text


def lines_of(source: str | BinaryIO) -> Iterator[Unlabelled]:
    """Each line of a UTF-8 file or stream as one text; lines that cannot be used have a reason.

    Raises:
        UsageError: the file cannot be opened, or its lines are no texts.
    """
    name = source if isinstance(source, str) else "standard input"
    if name.lower().endswith(WITHOUT_LINES):
        raise UsageError(
            f"{name}: the lines of such a file are no texts. Save it as .txt with one text per line, or as a table: "
            ".csv, or .jsonl with one object per line"
        )
    try:
        if isinstance(source, str):
            with open_file(source) as stream:
                yield from _lines(stream, f"{source}:")
        else:
            yield from _lines(source, "line ")
    except UnreadableInput as error:
        raise UsageError(f"{name}: {error.reason}") from error


def _lines(stream: BinaryIO, prefix: str) -> Iterator[Unlabelled]:
    for number, line in enumerate(stream, start=1):
        if number == 1 and line.startswith(UTF16_MARKS):  # no line could be read
            raise UnreadableInput(SAVE_AS_UTF8)
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

    Attributes:
        gives_texts: True; shows without loading a sample that a model of pictures cannot take them.
    """

    gives_texts = True

    def __init__(self, texts: list[str]):
        self.texts = texts

    def __call__(self, index: int) -> str:
        """Text `index`."""
        return self.texts[index]

    def fingerprint(self) -> list[Any]:
        """The texts are hashed themselves, so nothing else matters."""
        return [type(self)]
