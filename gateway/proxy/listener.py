"""A listening socket and the connections it has accepted."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING

from gateway.identity import SpiffeId
from gateway.proxy.downstream import DownstreamConnection, DownstreamLimits

if TYPE_CHECKING:
    from gateway.proxy.plane import DataPlane

log = logging.getLogger(__name__)

BACKLOG = 1024
PARTED_WITH = 10
"""One in so many idle connections is closed in each sweep while there is too little room: not all come back at once."""


class Listener:
    """Accepts callers on one address, mTLS or plaintext."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        name: str,
        host: str,
        port: int,
        context: Callable[[], ssl.SSLContext | None],
        assumed_principal: SpiffeId | None = None,
        limits: DownstreamLimits,
    ) -> None:
        """Args: `context` gives the TLS context for the next connection, ``None`` for plaintext."""
        self.plane = plane
        self.name = name
        self.host = host
        self.port = port
        self.context = context
        self.assumed_principal = assumed_principal
        self.limits = limits
        self.connections: set[DownstreamConnection] = set()
        self.refused = 0
        """Connections that were closed at once, because there was no room for more."""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and listen; `port` becomes the bound one.

        Raises:
            OSError: the address cannot be bound.

        """
        self._server = await self.plane.loop.create_server(
            lambda: DownstreamConnection(self), self.host, self.port, backlog=BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]
        if self.context() is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            log.warning(
                "LISTENER %s SPEAKS PLAINTEXT ON %s:%d: anybody who reaches it is believed; for development only",
                self.name,
                self.host,
                self.port,
            )

    def opened(self, connection: DownstreamConnection) -> None:
        """A connection was accepted."""
        self.connections.add(connection)
        self.plane.telemetry.connection_opened(self.name)

    def lost(self, connection: DownstreamConnection) -> None:
        """A connection is gone."""
        if connection in self.connections:
            self.connections.discard(connection)
            self.plane.telemetry.connection_closed(self.name)

    def handshake_failed(self, reason: str) -> None:
        """A caller did not get in."""
        self.plane.telemetry.handshake_failed(self.name, reason)

    def sweep(self, now: float, wall: float) -> None:
        """Close connections that ask for nothing, and those whose caller's certificate has ended.

        Args:
            now: the loop's time.
            wall: seconds since the epoch.

        """
        for connection in list(self.connections):
            if connection.valid_until < wall:
                connection.expire()
            if connection.exchanges:
                for exchange in list(connection.exchanges.values()):
                    exchange.tick(now)
                continue
            waited = now - connection.idle_since
            if waited > (self.limits.idle_timeout_s if connection.asked else self.limits.headers_timeout_s):
                if connection.asked:
                    connection.drain()
                else:
                    connection.abort()

    def part_with_some(self) -> None:
        """Close some of the connections on which nothing is under way, those idle for longest first."""
        idle = [connection for connection in self.connections if connection.asked and not connection.exchanges]
        idle.sort(key=attrgetter("idle_since"))
        for connection in idle[: 1 + len(idle) // PARTED_WITH]:
            connection.drain()

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections go on."""
        if self._server is not None:
            self._server.close()

    def drain(self) -> None:
        """Ask every connection to finish."""
        for connection in list(self.connections):
            connection.drain()

    def abort(self) -> None:
        """Drop every connection."""
        for connection in list(self.connections):
            connection.abort()
