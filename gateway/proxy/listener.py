"""A listening socket and the connections it has accepted."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING

from gateway.identity import SpiffeId
from gateway.overload import Level
from gateway.proxy.connection import keep_alive
from gateway.proxy.downstream import DownstreamConnection, DownstreamLimits
from gateway.proxy.handshakes import Arrivals
from gateway.proxy.lifetimes import CALLER, Clock
from gateway.proxy.sockets import BACKLOG, listening, waiting

if TYPE_CHECKING:
    from gateway.proxy.plane import DataPlane

log = logging.getLogger(__name__)

PARTED_WITH = 10
"""One in so many idle connections is closed in each sweep while there is too little room: not all come back at once."""
SWEEP_SLICE_S = 0.0005
"""How long at a time connections, or pools, are looked at, while others wait."""
SWEEP_PAUSE_S = 0.005
"""Between two slices: a request on its way takes several turns of the loop, and is to meet one slice at most."""


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
        original_destination: bool = False,
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
            original_destination: packets go to the agent that their connection was bound for when it was redirected
                here, or nowhere.
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
        self.original_destination = original_destination
        self.limits = limits
        self.tls = context() is not None
        self.connections: set[DownstreamConnection] = set()
        self._reuse_port = reuse_port
        self._sockets = list(sockets)
        self._servers: list[asyncio.Server] = []
        self.refused = 0
        """Connections that were closed at once, because there was no room for more."""
        self._arrivals = Arrivals(limits.arrivals, handshakes=self.tls)
        self._to_sweep: list[DownstreamConnection] = []

    async def start(self) -> None:
        """Bind and listen; `port` becomes the bound one.

        Raises:
            OSError: the address cannot be bound.

        """
        if not self._sockets:
            self._sockets = listening(self.host, self.port, reuse_port=self._reuse_port)
        self.port = self._sockets[0].getsockname()[1]
        for each in self._sockets:
            keep_alive(each)  # the sockets that it accepts are as it is
            # The server closes what it is given: the queue of the socket outlives it.
            server = await self.plane.loop.create_server(self._connection, sock=each.dup(), backlog=BACKLOG)
            self._servers.append(server)
        if not self.tls and self.host not in ("127.0.0.1", "::1", "localhost"):
            log.warning(
                "LISTENER %s SPEAKS PLAINTEXT ON %s:%d: anybody who reaches it is believed; for development only",
                self.name,
                self.host,
                self.port,
            )

    def retune(self, limits: DownstreamLimits) -> None:
        """Go by other limits; what a connection announced or was told when it began stays."""
        self.limits = limits
        self._arrivals.retune(limits.arrivals)

    def _connection(self) -> DownstreamConnection:
        return DownstreamConnection(self)

    def opened(self, connection: DownstreamConnection) -> bool:
        """A connection was accepted; ``False`` when it is one too many."""
        if self.plane.door.level >= Level.NO_CONNECTIONS:
            self.refused += 1
            return False
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
                self.plane.loop.call_later(SWEEP_PAUSE_S, self._sweep_some, now, wall)
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
                if connection.leaving_since is None:
                    self.plane.lifetimes.fired(CALLER, Clock.IDLE)
                connection.leave(now)
            else:
                self.plane.lifetimes.fired(CALLER, Clock.HEADERS)
                connection.abort()

    def revoke(self, revoked: frozenset[bytes]) -> None:
        """End what came in on a certificate that `revoked` names."""
        for connection in list(self.connections):
            connection.on_revoked(revoked)

    def part_with_some(self, now: float) -> None:
        """Have some of the connections go on which nothing is under way, those idle for longest first."""
        idle = [connection for connection in self.connections if connection.asked and not connection.exchanges]
        idle.sort(key=attrgetter("idle_since"))
        for connection in idle[: 1 + len(idle) // PARTED_WITH]:
            connection.leave(now)

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
        self._to_sweep.clear()
        for connection in list(self.connections):
            if connection.lingering:
                connection.close_transport()  # the system sends what is left
            else:
                connection.abort()
