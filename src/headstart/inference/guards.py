"""What protects the server from other web sites, and from clients that are slow or too many.

Made by hand: Starlette's `TrustedHostMiddleware` needs a list of names, but a server with `host=0.0.0.0` is reached by
many addresses; and uvicorn has no time limit for a request.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from uvicorn.protocols.http.h11_impl import H11Protocol

BODY_SECONDS = 30
"""A sample must arrive within this time."""
HEADER_SECONDS = 15
"""A connection must begin a request within this time, and after an answer the next one."""
WAITING = 8
"""Samples that may wait for their answer; further requests are refused at once."""
CONNECTIONS = 64
"""Simultaneous connections; further ones are refused at once."""


def names_of_this_machine() -> frozenset[str]:
    """`localhost` and the names of this machine, lower case. May ask a name server, which can take seconds."""
    own = socket.gethostname().lower()
    return frozenset(("localhost", own, f"{own}.local", socket.getfqdn().lower()))


def why_refused(headers: Mapping[str, str], names: Collection[str]) -> str | None:
    """Why a request may come from a hostile web site; None if it is fine.

    A site can make its own name point to this machine (DNS rebinding): then `Host` is that name. Or its page sends a
    request to this machine: then `Origin` is another host.

    Args:
        headers: of the request.
        names: names of this server, lower case; addresses are always allowed.
    """
    try:
        host = urlsplit(f"//{headers.get('host', '')}")
        origin = urlsplit(headers["origin"]) if "origin" in headers else None
    except ValueError:  # such as an address in brackets that is none
        return "the header Host or Origin of the request is not valid"
    name = (host.hostname or "").removesuffix(".")
    if not _is_address(name) and name not in names:
        return (
            "this server answers to its address, to localhost and to the name of its machine only; "
            "start it with hosts=<name> to allow another name"
        )
    if origin is not None and origin.netloc.lower() != host.netloc.lower():
        return f"pages of other sites ({headers['origin'][:100]}) may not use this server"
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class TimedProtocol(H11Protocol):
    """Closes connections that do not finish the header of a request in time. For `uvicorn.Config(http=...)`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Starts the clock."""
        super().connection_made(transport)
        self._check_later()

    def _check_later(self) -> None:
        self.timer = self.loop.call_later(HEADER_SECONDS, self._check)

    def _check(self) -> None:
        """Closes the connection unless a request is being answered; reading its body has a limit of its own."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._check_later()

    def on_response_complete(self) -> None:
        """Starts the clock again: a client that keeps its connection has the full time for its next request."""
        self.timer.cancel()
        if not self.transport.is_closing():
            self._check_later()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self.timer.cancel()
        super().connection_lost(exc)
