"""Pages that need nothing else to be read: no request leaves them, no script is in them."""

import base64
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from headstart.files import replacing

TEMPLATES = Path(__file__).with_name("templates")
INK = "#010203"
"""Stands for the colour of the text while a figure is drawn; the page puts its own, light or dark, in its place."""
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's letters
    "svg.hashsalt": "headstart",  # the same figure is the same file
    "font.size": 10,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


def style() -> Any:
    """The context in which a figure for `inline_svg` is drawn."""
    return rc_context(STYLE)


def inline_svg(figure: Figure, key: str, label: str) -> Markup:
    """A figure drawn in `style()`, to be put into a page.

    Args:
        figure: what is shown.
        key: a word that no other figure of the page has.
        label: what a person who does not see it is told.
    """
    stream = io.StringIO()
    with style():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    # names are those of the whole page
    for before in (' id="', "url(#", 'href="#'):
        text = text.replace(before, f"{before}{key}-")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(label)}"', 1))


def data_uri(content: bytes, kind: str) -> str:
    """A picture (`png`, `jpeg`) as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def markdown(text: Any) -> str:
    """Text that means itself in Markdown, also in the cell of a table."""
    shown = re.sub(r"([\\`*{}\[\]<>#|]|\b_|_\b|(?<!\w)_)", r"\\\1", str(text))
    return " ".join(shown.split())


@cache
def _environment(escape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = markdown
    environment.globals["css"] = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return environment


def write_page(file: Path, template: str, **content: Any) -> None:
    """Fills a template; in HTML everything that is not `Markup` is escaped. Complete or not at all."""
    text = _environment(template.endswith(".html")).get_template(template).render(**content)
    with replacing(file) as stream:
        stream.write(text.encode(errors="replace").decode())  # a folder's name need not be text
