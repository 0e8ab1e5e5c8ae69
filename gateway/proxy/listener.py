"""A listening socket and the connections it has accepted."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from gateway.identity import SpiffeId
from gateway.proxy.connection import keep_alive
from gateway.proxy.downstream import DownstreamConnection, DownstreamLimits
from gateway.proxy.handshakes import Arrivals
from gateway.proxy.lifetimes import CALLER, Clock

if TYPE_CHECKING:
    from gateway.proxy.plane import DataPlane

log = logging.getLogger(__name__)

BACKLOG = 1024
SWEEP_SLICE_S = 0.001
"""How long at a time connections are looked at, while others wait."""


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
        self.tls = context() is not None
        self.connections: set[DownstreamConnection] = set()
        self._arrivals = Arrivals(limits.arrivals, handshakes=self.tls)
        self._to_sweep: list[DownstreamConnection] = []
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
        for each in self._server.sockets:
            keep_alive(each)  # the sockets that it accepts are as it is
        if not self.tls and self.host not in ("127.0.0.1", "::1", "localhost"):
            log.warning(
                "LISTENER %s SPEAKS PLAINTEXT ON %s:%d: anybody who reaches it is believed; for development only",
                self.name,
                self.host,
                self.port,
            )

    def opened(self, connection: DownstreamConnection) -> bool:
        """A connection was accepted; ``False`` when it is one too many."""
        reason = self._arrivals.admit(connection.site, connection.opened_at)
        if reason:
            self.handshake_failed(reason)
            return False
        self.connections.add(connection)
        self.plane.telemetry.connection_opened(self.name)
        return True

    def shaken(self, connection: DownstreamConnection) -> None:
        """A connection's handshake is over."""
        self._arrivals.shaken(connection.site)

    def lost(self, connection: DownstreamConnection) -> None:
        """A connection is gone."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._arrivals.left(connection.site, shaking=connection.shaking)
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
        if not self._to_sweep:
            self._to_sweep = list(self.connections)
            self._sweep_some(now, wall)

    def _sweep_some(self, now: float, wall: float) -> None:
        """Look at some connections: thousands at once would keep the others' requests waiting."""
        until = perf_counter() + SWEEP_SLICE_S
        while self._to_sweep:
            self._look_at(self._to_sweep.pop(), now, wall)
            if perf_counter() > until:
                self.plane.loop.call_soon(self._sweep_some, now, wall)
                return

    def _look_at(self, connection: DownstreamConnection, now: float, wall: float) -> None:
        if connection.closed:
            return
        if connection.shaking:
            if now - connection.opened_at > self.limits.handshake_timeout_s:
                self.handshake_failed("handshake-timeout")
                connection.abort()
            return
        if connection.valid_until < wall:
            connection.expire()
        connection.look_at(now)
        if connection.exchanges:
            for exchange in list(connection.exchanges.values()):
                exchange.tick(now)
            return
        waited = now - connection.idle_since
        if waited > (self.limits.idle_timeout_s if connection.asked else self.limits.headers_timeout_s):
            if connection.asked:
                self.plane.lifetimes.fired(CALLER, Clock.IDLE)
                connection.drain()
            else:
                self.plane.lifetimes.fired(CALLER, Clock.HEADERS)
                connection.abort()

    def revoke(self, revoked: frozenset[bytes]) -> None:
        """End what came in on a certificate that `revoked` names."""
        for connection in list(self.connections):
            connection.on_revoked(revoked)

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
        self._to_sweep.clear()
        for connection in list(self.connections):
            connection.abort()
