"""The documents as data: their commands, the output shown below them, the options they name, their links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
INLINE_COMMANDS = ("python ", "headstart ", "src/", "scripts/", "make ", "pip ", "tensorboard ", "torchrun ")
STANDS_FOR = {"<seed>": "0", "<date>": "2026-01-01", "<recipe>": "auto", "model=<any>": "model=resnet18"}
"""A placeholder -> a value that fits; any other one is a text."""
SEPARATORS = {"|", ";", "&&", "&", "||"}


@dataclass(frozen=True)
class Shown:
    """A command in a document.

    Attributes:
        file: the document, relative to the root of the checkout.
        line: in the document, from 1; of a block the one where it begins.
        text: as it is written, with its continuation lines.
        output: the lines below it, up to the next command.
    """

    file: str
    line: int
    text: str
    output: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@cache
def tokens(document: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(document.read_text(encoding="utf-8"))


def commands() -> Iterator[Shown]:
    """All commands: lines of bash blocks, lines of other blocks after a dollar, inline code that begins like one."""
    for document in DOCUMENTS:
        name = document.relative_to(ROOT).as_posix()
        for token in tokens(document):
            if token.type == "fence":
                yield from _in_block(name, token)
            for line, code in _inline_code(token):
                if code.startswith(INLINE_COMMANDS) and len(code.split()) > 1:
                    yield Shown(name, line, code)


def _in_block(name: str, token: Token) -> Iterator[Shown]:
    begun, output = None, []
    lines = iter(token.content.splitlines())
    for line in lines:
        is_command = token.info == "bash" or line.startswith(("$ ", "python "))
        if not is_command:
            output.append(line)
            continue
        if begun:
            yield Shown(name, token.map[0] + 1, begun, tuple(output))
        begun, output = line.removeprefix("$ "), []
        while begun.endswith("\\"):
            begun = begun[:-1] + next(lines).strip()
    if begun:
        yield Shown(name, token.map[0] + 1, begun, tuple(output))


def commands_in_conf() -> Iterator[Shown]:
    """The commands in comments and help texts of conf/: lines that begin with `python`, indented or after a `#`."""
    for file in sorted(ROOT.glob("conf/**/*.yaml")):
        text = re.sub(r"\\+\n[# ]*", "", file.read_text(encoding="utf-8"))
        for found in re.finditer(r"^[# ]*((?:python|torchrun) .*)$", text, re.MULTILINE):
            command = re.split(r"\s{2,}|  +#", found[1])[0]
            if re.search(r" (src|scripts)/\w+\.py", command):
                yield Shown(file.relative_to(ROOT).as_posix(), text[: found.start()].count("\n") + 1, command)


def inline_code() -> Iterator[tuple[str, str]]:
    """The place and the text of every inline code."""
    for document in DOCUMENTS:
        for token in tokens(document):
            for line, code in _inline_code(token):
                yield f"{document.relative_to(ROOT).as_posix()}:{line}", code


def _inline_code(token: Token) -> Iterator[tuple[int, str]]:
    for child in token.children or ():
        if child.type == "code_inline":
            yield (token.map or (0,))[0] + 1, child.content


def simple_commands(text: str) -> list[list[str]]:
    """The words of each command of a shell line: without comments, redirections, variables and loops."""
    for placeholder, value in STANDS_FOR.items():
        text = text.replace(placeholder, value)
    text = re.sub(r"<[^<>]+>|\$\w+", "placeholder", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word in SEPARATORS:
            found.append([])
        elif word in {">", "<", ">>"}:
            next(words)
        elif word not in {"do", "done", "...", "…"} and not (not found[-1] and re.match(r"[A-Z_]+=", word)):
            found[-1].append(word)
    return [each for each in found if each and each[0] != "for"]


def links() -> Iterator[tuple[Path, str]]:
    """Each link and picture within the project, with its document."""
    for document in DOCUMENTS:
        for token in tokens(document):
            for child in token.children or ():
                target = child.attrGet("href") if child.type == "link_open" else child.attrGet("src")
                if target and not re.match(r"[a-z]+:", target):
                    yield document, target


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    listed = tokens(document)
    headings = [listed[i + 1].content for i, token in enumerate(listed) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
