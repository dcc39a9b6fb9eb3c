"""Texts in the web application: a page to write one on, and its words with their weights."""

import io
from typing import Any

from torch import nn

from headstart.backbones.base import Backbone
from headstart.display.texts import pieces
from headstart.evaluation.explanations.texts import explain
from headstart.inference.served_kind import ServedKind

ALLOWED = ("", "text/plain", "application/octet-stream")
SHOWN = 10_000
"""Characters of a text that come back with weights; networks read fewer."""


class ServedTexts(ServedKind):
    """The kind for texts."""

    page, noun, send = "text_page.html", "text", "send only the text in UTF-8, as text/plain, or a form with files"
    example = "-H 'Content-Type: text/plain' --data-binary 'a text'"
    most_bytes = 10**6  # of a longer text the network reads only the beginning, but all of it becomes tokens first
    explanations = "the weights of words"

    def accepts(self, content_type: str) -> bool:
        """Plain text in UTF-8."""
        kind, *parameters = (part.strip() for part in content_type.split(";"))
        charsets = [each.partition("=")[2].strip(' "') for each in parameters if each.startswith("charset")]
        return kind in ALLOWED and all(charset in ("utf-8", "utf8", "us-ascii") for charset in charsets)

    def explained(self, network: nn.Module, backbone: Backbone, body: bytes, batch: Any, chosen: int) -> dict[str, Any]:
        """`words`: the text in pieces. `weight` is from -1 to 1; null: between words; `read` false: cut off."""
        text = backbone.preprocess.read(io.BytesIO(body))
        (words,) = explain(network, backbone, [text], [chosen])
        found = pieces(text, words, SHOWN)
        return {"words": [{"text": each.text, "weight": each.weight, "read": each.is_read} for each in found]}
