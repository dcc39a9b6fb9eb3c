"""A hook of mkdocs: adds the pages that are made from other files, so that they cannot differ from them.

- the reference: each group and option with its comment from conf/, the settings of all other commands from their
  dataclasses, as in `--help`;
- CONTRIBUTING.md and CHANGELOG.md;
- the source files that pages link to, because the site has no other place for them.

pip install -e ".[docs]"; mkdocs build --strict
"""

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from headstart.cli.options import SETTERS, Group, Option, file_of, groups, run_options  # noqa: E402
from headstart.cli.schemas import ROOTS  # noqa: E402
from headstart.cli.settings import settings_of  # noqa: E402
from headstart.cli.train_help import MOST_USED, comments_by_name  # noqa: E402

COPIES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File beside README.md -> page."""
LANGUAGES = {".py": "python", ".yaml": "yaml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages of the reference into the navigation."""
    section = next(each for each in config.nav if "Reference" in each)
    section["Reference"] = [{"Overview": "reference/index.md"}, {"All other commands": "reference/commands.md"}]
    section["Reference"] += [{group.name: f"reference/{group.name}.md"} for group in groups()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages = {"reference/index.md": overview(), "reference/commands.md": commands_page()}
    pages |= {f"reference/{group.name}.md": group_page(group) for group in groups()}
    for name, page in COPIES.items():
        pages[page] = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    for page in files.documentation_pages():
        pages |= dict(source_pages(Path(page.abs_src_path).read_text(encoding="utf-8")))
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of docs/ lead to the pages made from these files; a folder of conf/ is a page of the reference."""
    for name, page in COPIES.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    markdown = markdown.replace("](../conf)", "](reference/index.md)")
    markdown = re.sub(r"\]\(\.\./conf/(\w+)\)", r"](reference/\1.md)", markdown)
    return re.sub(r"\]\(\.\./((?:src|conf|scripts|tests)/[\w/]+\.\w+)\)", r"](source/\1.md)", markdown)


def source_pages(markdown: str) -> Iterator[tuple[str, str]]:
    """Name and content of a page for each source file that a page links to."""
    for name in re.findall(r"\]\(\.\./((?:src|conf|scripts|tests)/[\w/]+\.\w+)\)", markdown):
        text = (ROOT / name).read_text(encoding="utf-8")
        yield f"source/{name}.md", f"# {name}\n\n````{LANGUAGES.get(Path(name).suffix, '')}\n{text}````\n"


def overview() -> str:
    """The options that are used most, the options of the run, and the groups."""
    comments = comments_by_name(groups()) | {group.name: group.comment for group in groups()}
    used = [(f"`{name}={value}`", _cell(comments[name])) for name, value in MOST_USED.items()]
    named = [(f"[`{group.name}`]({group.name}.md)", _default(group), _cell(group.comment)) for group in groups()]
    return "\n".join([
        "# Every option", "",
        "This page and the others of this section are made from the comments in `conf/` and from the dataclasses of "
        "the commands. `python src/train.py --help` shows the same, `--help finetuning` one group.", "",
        "## Used most", "", *_table(("option", "meaning"), used), "",
        "## The run", "", *_table(("option", "default", "meaning"), map(_row, run_options())), "",
        "## Groups", "", "Each group is a folder of `conf/`, each file in it a choice: `<group>=<file>`.", "",
        *_table(("group", "default", "meaning"), named), "",
    ])  # fmt: skip


def group_page(group: Group) -> str:
    """The choices and the options of a group."""
    default = f" Default: `{group.name}={group.default}`." if group.default != "null" else " Default: none."
    parts = [f"# {group.name}", "", f"{_sentence(group.comment)}{default}", "", "## Choices", ""]
    parts += _table((f"{group.name}=", "meaning"), ((f"`{each.name}`", _cell(each.summary)) for each in group.choices))
    if group.options:
        rows = [(*_row(option), _holders(holders, group)) for option, holders in group.options]
        parts += ["", "## Options", "", *_table(("option", "default", "meaning", "choices"), rows)]
    if group.name in SETTERS or group.name == "finetuning":
        for choice in group.choices:
            text = file_of(group.name, choice.name).read_text(encoding="utf-8")
            parts += ["", f"## {choice.name}", "", f"```yaml\n{text}```"]
    return "\n".join([*parts, ""])


def commands_page() -> str:
    """The settings of all commands but training."""
    parts = ["# All other commands", "", "The same as `--help` of each command."]
    for name in (each for each in ROOTS if each != "train"):
        rows = []
        for option, each in settings_of(ROOTS[name]):
            rules = each.metadata["setting"]
            words = f"{rules.help}: {', '.join(rules.choices)}" if rules.choices else rules.help
            default = "must be given" if each.default == "???" else f"`{_plain(each.default)}`"
            rows.append((f"`{option}`", default, _cell(words)))
        parts += ["", f"## src/{name}.py", "", *_table(("option", "default", "meaning"), rows)]
    return "\n".join([*parts, ""])


def _plain(value: Any) -> str:
    """As it is typed; a value from the environment as the one that holds without it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else re.sub(r"\$\{oc\.env:\w+,(\w+)\}", r"\1", str(value))


def _row(option: Option) -> tuple[str, str, str]:
    return f"`{option.name}`", f"`{option.default}`" if option.default else "", _cell(option.comment)


def _default(group: Group) -> str:
    return "" if group.default == "null" else f"`{group.default}`"


def _holders(holders: tuple[str, ...], group: Group) -> str:
    if group.shared_by_all(holders):
        return "all"
    return ", ".join(f"`{name}`" for name in holders) if len(holders) <= 6 else f"{len(holders)} of them"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _cell(words: str) -> str:
    """Words in a table: settings as code, and no character that Markdown takes for itself."""
    pieces = re.split(r"((?<!\S)[~+]?[\w.]+=[^\s;:)]*[\w\]])", words)
    return "".join(f"`{each}`" if number % 2 else _escaped(each) for number, each in enumerate(pieces))


def _escaped(words: str) -> str:
    return re.sub(r"([|_*\[\]])", r"\\\1", html.escape(words, quote=False))


def _table(header: tuple[str, ...], rows: Any) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]
