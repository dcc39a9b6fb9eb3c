"""Pages in one file: they load nothing from elsewhere and contain no script."""

import base64
import io
import logging
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from headstart.display.fonts import MISSING_GLYPH
from headstart.files import replacing
from headstart.inputs.base import UnreadableInput
from headstart.inputs.opening import open_file

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).with_name("templates")
WEBP_QUALITY = 75
MOST_PIXELS, MOST_BYTES = 20_000_000, 100_000_000
"""Largest picture of a run that is shown."""
LONGEST_WEBP = 16383
"""Longest side of a picture as WebP, in pixels."""
TEXT_COLOUR = "#010203"
"""A placeholder in figures. The page replaces it by the colour of its text, which is dark or light."""
FIGURE_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "svg.hashsalt": "headstart",  # the same figure gives the same file
    "font.size": 10,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), TEXT_COLOUR
    ),
}


def style() -> Any:
    """A context for drawing the figures of `inline_svg`."""
    return rc_context(FIGURE_STYLE)


def inline_svg(figure: Figure, key: str, label: str) -> Markup:
    """SVG of a figure that was drawn in `style()`, for a page.

    Args:
        figure: the figure.
        key: a word that no other figure on the page has.
        label: a description for people who cannot see it.
    """
    stream = io.StringIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", MISSING_GLYPH)  # the browser has its own fonts
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace(TEXT_COLOUR, "currentColor")
    # all figures of a page share one set of ids
    for before in (' id="', "url(#", 'href="#'):
        text = text.replace(before, f"{before}{key}-")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(label)}"', 1))


def data_uri(content: bytes, kind: str) -> str:
    """A URL that contains a picture of the given kind: `png`, `jpeg` or `webp`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def file_uri(file: Path) -> str | None:
    """A URL that contains the picture in a PNG file: as WebP, or as it is if that is smaller.

    A sheet of photos with captions is a tenth of the PNG as WebP; as JPEG of the same quality it is a fifth.

    Returns:
        None if the picture cannot be shown; a line in the log says why.
    """
    picture = picture_in(file)
    if picture is None:
        return None
    as_png, stream = file.read_bytes(), io.BytesIO()
    if max(picture.size) > LONGEST_WEBP:
        return data_uri(as_png, "png")
    picture.convert("RGB").save(stream, "WEBP", quality=WEBP_QUALITY)
    as_webp = stream.getvalue()
    return data_uri(as_webp, "webp") if len(as_webp) < len(as_png) else data_uri(as_png, "png")


def picture_in(file: Path) -> Image.Image | None:
    """The picture in a PNG file of a run, which may come from a stranger; None if it cannot be shown.

    The log then says why. For other formats, Pillow would start other programs. A small file may hold more pixels than
    fit into the memory.
    """
    try:
        with open_file(file) as stream:
            if file.stat().st_size > MOST_BYTES:
                raise UnreadableInput(f"larger than {MOST_BYTES / 1e6:g} MB")
            with Image.open(stream, formats=("PNG",)) as picture:
                width, height = picture.size
                if width * height > MOST_PIXELS:
                    raise UnreadableInput(f"too large: {width} x {height} pixels")
                picture.load()
                return picture
    except UnreadableInput as error:
        reason = error.reason
    except Image.DecompressionBombError:
        reason = "too large"
    except Exception:  # for a broken file, Pillow raises errors of nearly any class
        reason = "no PNG picture, or damaged"
    log.warning("%s is not shown: %s", file, reason)
    return None


def escape_markdown(text: Any) -> str:
    """Text for Markdown, on one line and with special characters escaped, also for a cell of a table."""
    escaped = re.sub(r"([\\`*{}\[\]<>#|]|\b_|_\b|(?<!\w)_)", r"\\\1", str(text))
    return " ".join(escaped.split())


@cache
def _environment(escape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = escape_markdown
    environment.globals["css"] = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return environment


def write_page(file: Path, template: str, **content: Any) -> None:
    """Fills a template and writes the file, complete or not at all. In HTML everything except `Markup` is escaped."""
    text = _environment(template.endswith(".html")).get_template(template).render(**content)
    with replacing(file) as stream:
        stream.write(text.encode(errors="replace").decode())  # the name of a folder may be invalid Unicode
