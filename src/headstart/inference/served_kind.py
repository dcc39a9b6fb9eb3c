"""The part of the web application that depends on the kind of input."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn

from headstart.backbones.base import Backbone


class ServedKind(ABC):
    """One kind of input: its page, its content types and its explanations.

    Attributes:
        page: file of the page.
        noun: the word for one input in messages.
        send: how to send one, for messages.
        example: options of curl that send one, for a terminal.
        most_bytes: largest size of a request, if the settings allow more; None: no other limit.
        explanations: the word for explanations in messages.
    """

    page: ClassVar[str]
    noun: ClassVar[str]
    send: ClassVar[str]
    example: ClassVar[str]
    most_bytes: ClassVar[int | None] = None
    explanations: ClassVar[str]

    @abstractmethod
    def accepts(self, content_type: str) -> bool:
        """Whether a request with this content type, in lower case, may hold an input; empty: there is none."""

    @abstractmethod
    def explained(self, network: nn.Module, backbone: Backbone, body: bytes, batch: Any, chosen: int) -> dict[str, Any]:
        """What led to a class, as an addition to the answer.

        Args:
            network: batch -> logits.
            backbone: part of the network.
            body: of the request; it was read without an error.
            batch: the input as a batch of one, on the device of the network.
            chosen: index of the class.
        """
