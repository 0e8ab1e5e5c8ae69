"""A listening socket and the connections it has accepted."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway.identity import SpiffeId
from gateway.proxy.downstream import DownstreamConnection, DownstreamLimits
from gateway.proxy.sockets import BACKLOG, listening, waiting

if TYPE_CHECKING:
    from gateway.proxy.plane import DataPlane

log = logging.getLogger(__name__)


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
        sockets: Sequence[socket.socket] = (),
        reuse_port: bool = False,
    ) -> None:
        """Nothing is accepted yet.

        Args:
            plane: what the connections share.
            name: for people, and the label of metrics.
            host: where to listen; so is `port`.
            port: 0 has the system choose one.
            context: gives the TLS context for the next connection, ``None`` for plaintext.
            assumed_principal: who a caller without a certificate is taken for.
            limits: bounds on each connection.
            sockets: those that listen there already; without them, they are made.
            reuse_port: let other processes listen there, too.

        """
        self.plane = plane
        self.name = name
        self.host = host
        self.port = port
        self.context = context
        self.assumed_principal = assumed_principal
        self.limits = limits
        self.connections: set[DownstreamConnection] = set()
        self._reuse_port = reuse_port
        self._sockets = list(sockets)
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Bind and listen; `port` becomes the bound one.

        Raises:
            OSError: the address cannot be bound.

        """
        if not self._sockets:
            self._sockets = listening(self.host, self.port, reuse_port=self._reuse_port)
        self.port = self._sockets[0].getsockname()[1]
        for each in self._sockets:
            # The server closes what it is given: the queue of the socket outlives it.
            server = await self.plane.loop.create_server(self._connection, sock=each.dup(), backlog=BACKLOG)
            self._servers.append(server)
        if self.context() is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            log.warning(
                "LISTENER %s SPEAKS PLAINTEXT ON %s:%d: anybody who reaches it is believed; for development only",
                self.name,
                self.host,
                self.port,
            )

    def _connection(self) -> DownstreamConnection:
        return DownstreamConnection(self)

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
                    connection.leave(now)
                else:
                    connection.abort()

    async def stop_accepting(self) -> None:
        """Close the listening sockets; who has connected by then is accepted, and open connections go on."""
        for server in self._servers:
            server.close()
        await asyncio.sleep(0)  # the servers' last turn
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            while accepted := waiting(each):
                for connection in accepted:
                    await self.plane.loop.connect_accepted_socket(self._connection, connection)
            each.close()  # in the same turn as the queue was seen to be empty

    def leave(self, now: float) -> int:
        """Have every connection go; tells how many have not yet, with everything that was written."""
        for connection in list(self.connections):
            connection.leave(now)
        return sum(not connection.delivered for connection in self.connections)

    def drain(self) -> None:
        """Have every connection take nothing more."""
        for connection in list(self.connections):
            connection.drain()

    def close(self) -> None:
        """Close every connection; what has not ended breaks off."""
        for connection in list(self.connections):
            if connection.lingering:
                connection.close_transport()  # the system sends what is left
            else:
                connection.abort()
