"""Pictures in the web application: a page to drop one on, and heat maps over it."""

import base64
import io
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.evaluation.explanations.pictures import explain
from headstart.inference.served_kind import ServedKind

NOT_PICTURES = ("text/", "application/json", "application/x-www-form-urlencoded", "multipart/")


class ServedPictures(ServedKind):
    """The kind for pictures."""

    page, noun, send = "page.html", "picture", "send only the bytes of the file, as image/jpeg"
    explanations = "heat maps"

    def accepts(self, content_type: str) -> bool:
        """Everything that may be a picture."""
        return not content_type.startswith(NOT_PICTURES)

    def explained(
        self, network: nn.Module, backbone: Backbone, body: bytes, batch: Tensor, chosen: int
    ) -> dict[str, Any]:
        """`map`: the heat map of the class over the picture, as the data URI of a PNG."""
        (found,) = explain(network, backbone, batch, [chosen])
        stream = io.BytesIO()
        Image.fromarray(_overlaid(batch[0].cpu(), found)).save(stream, "PNG")
        return {"map": "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()}


def _overlaid(picture: Tensor, heat: Tensor) -> np.ndarray:
    """A picture `(3, height, width)` under a heat map `(height, width)` from 0 to 1: uint8 `(height, width, 3)`."""
    share = (0.15 + 0.45 * heat.clamp(0, 1))[..., None].numpy()
    colours = 255 * colormaps["inferno"](heat.numpy())[..., :3]
    return ((1 - share) * picture.permute(1, 2, 0).numpy() + share * colours).round().astype(np.uint8)
