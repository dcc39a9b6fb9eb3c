"""What protects the server from other web sites, and from clients that are slow or too many.

Made by hand: Starlette's `TrustedHostMiddleware` needs a list of names, but a server with `host=0.0.0.0` is reached by
many addresses; and uvicorn has no time limit for a request.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from uvicorn.protocols.http.h11_impl import H11Protocol

BODY_SECONDS = 30
"""A picture must arrive within this time."""
HEADER_SECONDS = 15
"""A connection must begin a request within this time, and after an answer the next one."""
WAITING = 8
"""Pictures that may wait for their answer; further requests are refused at once."""
CONNECTIONS = 64
"""Simultaneous connections; further ones are refused at once."""


def why_refused(headers: Mapping[str, str]) -> str | None:
    """Why a request may come from a hostile web site; None if it is fine.

    A site can make its own name point to this machine (DNS rebinding): then `Host` is that name. Or its page sends a
    request to this machine: then `Origin` is another host.
    """
    host = urlsplit(f"//{headers.get('host', '')}")
    if not _is_this_machine(host.hostname or ""):
        return "this server answers to its address, to localhost and to the name of its machine only"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.netloc.lower():
        return f"pages of other sites ({origin[:100]}) may not use this server"
    return None


def _is_this_machine(name: str) -> bool:
    """Whether a host name is an address, `localhost`, or the name of this machine."""
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    own = socket.gethostname().lower()
    return name.lower() in ("localhost", own, f"{own}.local", socket.getfqdn().lower())


class ImpatientProtocol(H11Protocol):
    """Closes connections that do not finish the header of a request in time. For `uvicorn.Config(http=...)`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Starts the clock."""
        super().connection_made(transport)
        self._check_later()

    def _check_later(self) -> None:
        self.patience = self.loop.call_later(HEADER_SECONDS, self._check)

    def _check(self) -> None:
        """Closes the connection unless a request is being answered; reading its body has a limit of its own."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._check_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self.patience.cancel()
        super().connection_lost(exc)
