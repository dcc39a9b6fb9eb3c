"""Pictures in the web application: a page to drop one on, and heat maps over it."""

import io
from typing import Any

from PIL import Image
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.display.page import data_uri
from headstart.evaluation.explanations.photo import photo_under_map
from headstart.inference.served_kind import ServedKind

NOT_PICTURES = ("text/", "application/json", "application/x-www-form-urlencoded", "multipart/")


class ServedPictures(ServedKind):
    """The kind for pictures."""

    page, noun, send = "page.html", "picture", "send only the bytes of the file, as image/jpeg, or a form"
    example = "-F file=@cat.jpg -F file=@dog.jpg"
    explanations = "heat maps"

    def accepts(self, content_type: str) -> bool:
        """Everything that may be a picture."""
        return not content_type.startswith(NOT_PICTURES)

    def explained(
        self, network: nn.Module, backbone: Backbone, body: bytes, batch: Tensor, chosen: int
    ) -> dict[str, Any]:
        """`map`: the picture, as large as it is, under the heat map of the class; the data URI of a JPEG."""
        found, stream = photo_under_map(network, backbone, io.BytesIO(body), batch, chosen), io.BytesIO()
        Image.fromarray(found).save(stream, "JPEG", quality=85)
        return {"map": data_uri(stream.getvalue(), "jpeg")}
