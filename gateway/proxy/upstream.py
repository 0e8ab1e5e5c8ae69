"""Connections to agents, pooled per agent.

A pool hands out a connection that has room, or opens one; exchanges that must wait do so in order, in a bounded
queue.  A connection is trusted for packets only after its certificate has shown the agent's SPIFFE id.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface

from gateway.identity import IdentityError, Principal, principal_from_certificate
from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.overload import FairQueue
from gateway.proxy.codec import (
    ClientCodec,
    Codec,
    ConnectionFailed,
    DataReceived,
    Ended,
    Event,
    GoAwayReceived,
    Http1Client,
    Http2Client,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Writable,
)
from gateway.proxy.connection import Connection, keep_alive
from gateway.proxy.lifetimes import AGENT, Clock, Lifetimes
from gateway.proxy.revocation import REVOKED, marks
from gateway.proxy.tls import TlsFailure, TlsLayer
from gateway.proxy.turn import Turn
from gateway.refusal import Reason, Refusal
from gateway.routing import Agent, Protocol

log = logging.getLogger(__name__)

MAX_INTERIM = 64
"""Interim responses (1xx) to one request; an agent that sends more has lost its way."""
UNACKNOWLEDGED_MS = 30_000
"""How long an HTTP/2 agent's kernel may leave bytes unacknowledged.  Of HTTP/1.1 it is not asked: an agent that reads
no more for a while, as back pressure has it, would look the same."""
_REVOKED = Refusal(Reason.UPSTREAM_RESET, "the agent's certificate has been revoked")


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Bounds on the connections to one agent."""

    connect_timeout_s: float = 5.0
    """For TCP and TLS together."""
    idle_timeout_s: float = 60.0
    """An unused connection is closed after this."""
    max_age_s: float = 3600.0
    """Then it takes no new requests, and ends with the last of those that it has."""
    ping_after_s: float = 330.0
    """An HTTP/2 connection with requests under way that is silent for so long is asked for a sign of life."""
    ping_timeout_s: float = 20.0
    """Without one it is lost."""
    max_connections: int = 256
    max_pending: int = 1024
    """Exchanges that may wait for a connection; beyond it one of the caller with the most of them is refused."""
    max_in_flight: int = 4096
    """Exchanges that the agent has, or that wait for a connection; more are refused as overloaded."""
    max_header_bytes: int = 65536


class Requester(Interface):
    """Whoever sends a request to an agent: it is given a connection, and told what comes of it."""

    @property
    def caller(self) -> str:
        """For whom; those who wait for connections take turns by it."""

    def on_turned_away(self, why: str) -> None:
        """It waited for a connection, and lost its place to others."""

    def on_upstream(self, connection: UpstreamConnection) -> None:
        """`connection` has room for the request."""

    def on_connect_failed(self, why: str) -> None:
        """No connection could be had."""

    def on_agent_gone(self) -> None:
        """The agent left, or moved, before there was a connection."""

    def on_upstream_lost(self, *, untouched: bool, malformed: str) -> None:
        """The agent broke off; `untouched` when it certainly did nothing with the request."""

    def revoke(self, refusal: Refusal) -> None:
        """The agent is not to be spoken to any more."""

    def upstream_writable(self) -> None:
        """More of the request is welcome."""

    def on_response(self, head: ResponseHead, *, ended: bool) -> None:
        """A response's head, interim or final."""

    def on_response_data(self, data: bytes, size: int) -> None:
        """A piece of the response's body."""

    def on_response_end(self, trailers: Fields | None) -> None:
        """The response is whole."""


class UpstreamConnection(Connection):
    """One connection to an agent."""

    codec: ClientCodec | None

    def __init__(self, pool: Pool, context: ssl.SSLContext | None) -> None:
        super().__init__(pool.turn, pool.on_defect)
        self.pool = pool
        self.exchanges: dict[int, Requester] = {}
        self.idle_since = pool.loop.time()
        self.ready = False
        self.leaving = False
        """It takes no new streams."""
        self.valid_until = math.inf
        """Seconds since the epoch: when the agent's certificate ends."""
        self.peer: Principal | None = None
        """Whom the agent's certificate has shown."""
        self.marks: frozenset[bytes] = frozenset()
        """By which a revocation list names the agent's certificate and those that vouch for it."""
        self.old_at = self.idle_since + pool.lifetimes.age_s(pool.limits.max_age_s)
        self._heard = False
        """Bytes have come since the last look."""
        self._silent_since = self.idle_since
        self._asked_at = math.inf
        """When it was asked for a sign of life that has not come."""
        self.opened: asyncio.Future[None] = pool.loop.create_future()
        self._unsent: set[int] = set()
        """Streams whose head has not been written to the socket yet."""
        self._interim: dict[int, int] = {}
        """Interim responses on streams that had some and wait for the final one."""
        if context is not None:
            self.layers.append(TlsLayer(context, server_side=False))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            keep_alive(raw)
            if self.pool.agent.protocol is not Protocol.HTTP1:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        if self.layers:
            try:
                self.layers[0].start()
            except TlsFailure as failure:
                self.on_tls_failure(failure)
            self.flush()
        else:
            self._become_ready()

    def on_handshake(self, layer: TlsLayer) -> None:
        expected = self.pool.agent.spiffe_id
        try:
            certificate = layer.peer_certificate()
            if certificate is None:
                raise IdentityError("no certificate")
            shown = principal_from_certificate(certificate)
            if expected is not None and shown.id != expected:
                raise IdentityError(f"it shows {shown.id}, not {expected}")
        except IdentityError as error:
            raise TlsFailure("wrong-identity", str(error)) from None
        self.peer = shown
        if shown.not_after is not None:
            self.valid_until = shown.not_after.timestamp()
        revoked = self.pool.revoked()
        if revoked is not None:
            self.marks = marks(layer.peer_chain())
            if not revoked.isdisjoint(self.marks):
                raise TlsFailure(REVOKED, "a list that has come meanwhile names the agent's certificate")
        if self.pool.agent.protocol is Protocol.H2 and layer.alpn != "h2":
            raise TlsFailure("wrong-protocol", "the agent did not agree to h2")
        self._become_ready()

    def _become_ready(self) -> None:
        if self.pool.agent.protocol is Protocol.HTTP1:
            self.codec = Http1Client(entropy=secrets.token_bytes, max_header_bytes=self.pool.limits.max_header_bytes)
        else:
            self.codec = Http2Client(max_header_bytes=self.pool.limits.max_header_bytes)
        self.ready = True
        self.touch()
        if not self.opened.done():
            self.opened.set_result(None)

    def on_tls_failure(self, failure: TlsFailure) -> None:
        if not self.opened.done():
            self.opened.set_exception(failure)
        super().on_tls_failure(failure)

    @property
    def room(self) -> int:
        """How many more exchanges fit now."""
        transport = self._transport
        if self.leaving or not self.ready or self.closed or transport is None or transport.is_closing():
            return 0
        return self.codec.room if self.codec is not None else 0

    # -- what an exchange asks for ----------------------------------------------------------------------

    def open(self, exchange: Requester, head: RequestHead, *, ended: bool) -> int:
        """Send a request's head; gives its stream."""
        assert self.codec is not None
        stream = self.codec.send_request(head, ended=ended)
        self.exchanges[stream] = exchange
        self.pool.in_flight += 1
        self._unsent.add(stream)
        self.touch()
        return stream

    def send_data(self, stream: int, data: bytes) -> bool:
        """Send a piece of request body; ``False`` asks the source to wait for `Requester.upstream_writable`."""
        assert self.codec is not None
        more = self.codec.send_data(stream, data)
        self.gather(len(data))
        return more and not self.congested

    def end(self, stream: int, trailers: Fields | None) -> None:
        """End the request."""
        assert self.codec is not None
        self.codec.end(stream, trailers)
        self.touch()

    def consumed(self, stream: int, size: int) -> None:
        """Response data has been passed on."""
        assert self.codec is not None
        if self.codec.multiplexed:
            self.codec.consumed(stream, size)
            self.touch()

    def release(self, stream: int, *, cancel: bool) -> None:
        """The exchange needs this stream no more; `cancel` breaks it off at once."""
        if self.exchanges.pop(stream, None) is None or self.codec is None:
            return
        self.pool.in_flight -= 1
        self._unsent.discard(stream)
        self._interim.pop(stream, None)
        if cancel:
            self.codec.reset(stream, cancelled=True)
        self.codec.release(stream)
        if not self.exchanges:
            self.idle_since = self.loop.time()
        if self.codec.finished or cancel:
            self.touch()
        self.resume()
        self.pool.on_room(self)

    # -- events -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._heard = True
        super().data_received(data)

    def listen(self, now: float) -> None:
        """Ask an agent that has requests and says nothing for a sign of life, and give it up without one."""
        if self._heard or not self.exchanges:
            self._heard = False
            self._silent_since, self._asked_at = now, math.inf
        elif now - self._asked_at > self.pool.limits.ping_timeout_s:
            self.pool.lifetimes.fired(AGENT, Clock.SILENCE)
            log.warning("agent %s: no sign of life for %.0f s", self.pool.agent.name, now - self._silent_since)
            self.abort()
        elif now - self._silent_since > self.pool.limits.ping_after_s and self._asked_at == math.inf:
            codec = self.codec
            if codec is not None and codec.multiplexed:
                self._asked_at = now
                codec.ping()
                self.touch()

    def dispatch(self, events: list[Event]) -> None:
        exchanges = self.exchanges
        for event in events:
            if type(event) is ConnectionFailed:
                self._fail_all(malformed=event.detail)
                return
            if isinstance(event, GoAwayReceived):
                self.pool.on_going(self)
                continue
            exchange = exchanges.get(event.stream)
            if exchange is None:
                continue
            if type(event) is DataReceived:
                exchange.on_response_data(event.data, event.size)
            elif type(event) is ResponseReceived:
                if event.head.status < 200:
                    count = self._interim[event.stream] = self._interim.get(event.stream, 0) + 1
                    if count > MAX_INTERIM:
                        self._too_many_interim(event.stream)
                        continue
                exchange.on_response(event.head, ended=event.ended)
            elif type(event) is Ended:
                exchange.on_response_end(None)
            elif type(event) is TrailersReceived:
                exchange.on_response_end(event.fields)
            elif type(event) is Writable:
                exchange.upstream_writable()
            elif type(event) is StreamReset:
                self._lose(event.stream, untouched=event.untouched)

    def _too_many_interim(self, stream: int) -> None:
        """Interim responses have no back pressure: what never ends must be stopped here."""
        assert self.codec is not None
        self.codec.reset(stream)
        self._lose(stream, untouched=False, malformed=f"more than {MAX_INTERIM} interim responses")
        self.touch()

    def flush(self) -> None:
        if self.codec is not None and self.codec.aborted:
            self.abort()  # what was not written yet is of a request that is broken off: the agent need not see it
            return
        super().flush()
        self._unsent.clear()

    def on_uncongested(self) -> None:
        for exchange in list(self.exchanges.values()):
            exchange.upstream_writable()

    def on_closed(self) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("closed before it was ready"))
        self._fail_all()
        self.pool.on_connection_closed(self)

    def _fail_all(self, malformed: str = "") -> None:
        for stream in list(self.exchanges):
            self._lose(stream, untouched=stream in self._unsent and not malformed, malformed=malformed)

    def _lose(self, stream: int, *, untouched: bool, malformed: str = "") -> None:
        exchange = self.exchanges.pop(stream)
        self.pool.in_flight -= 1
        self._interim.pop(stream, None)
        if self.codec is not None:
            self.codec.release(stream)
        if not self.exchanges:
            self.idle_since = self.loop.time()
        exchange.on_upstream_lost(untouched=untouched, malformed=malformed)


class Pool:
    """The connections to one agent."""

    def __init__(
        self,
        agent: Agent,
        turn: Turn,
        limits: UpstreamLimits,
        context: Callable[[Agent], ssl.SSLContext],
        on_defect: Callable[[], None],
        lifetimes: Lifetimes,
        *,
        revoked: Callable[[], frozenset[bytes] | None] = lambda: None,
    ) -> None:
        self.agent = agent
        self.scheme = b"https" if agent.tls else b"http"
        self.turn = turn
        self.loop = turn.loop
        self.limits = limits
        self.on_defect = on_defect
        self.lifetimes = lifetimes
        self.revoked = revoked
        """Gives the marks of certificates that are revoked; ``None`` where no lists are configured."""
        self.connections: set[UpstreamConnection] = set()
        self.retired = False
        self.in_flight = 0
        """Requests on all connections."""
        self._context = context
        self._idle: list[UpstreamConnection] = []
        """HTTP/1.1: unused connections, the warmest last."""
        self._shared: list[UpstreamConnection] = []
        """HTTP/2: connections that take more streams."""
        self._waiting: FairQueue[Requester] = FairQueue(limits.max_pending)
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def empty(self) -> bool:
        """Whether nothing is open, opening, or waited for."""
        return not (self.connections or self._opening or self._waiting)

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._waiting)

    def retune(self, limits: UpstreamLimits) -> None:
        """Go by other limits; what is open or waits stays."""
        self.limits = limits
        self._waiting.capacity = limits.max_pending

    def acquire(self, exchange: Requester) -> str:
        """Give `exchange` a connection, now or later, by `Requester.on_upstream`; else say why not."""
        if self.in_flight + len(self._waiting) >= self.limits.max_in_flight:
            return f"too many packets are under way at {self.agent.name}"
        connection = self._take()
        if connection is not None:
            exchange.on_upstream(connection)
            return ""
        why = f"too many packets wait for a connection to {self.agent.name}"
        loser = self._waiting.push(exchange.caller, exchange)
        if loser is exchange:
            return why
        if loser is not None:
            loser.on_turned_away(why)
        self._open_more()
        return ""

    def retire(self) -> None:
        """The agent is gone, or has moved: what is under way goes on, what waits looks for another."""
        self.retired = True
        waiting, self._waiting = self._waiting, FairQueue(self.limits.max_pending)
        for exchange in waiting:
            exchange.on_agent_gone()

    def cancel(self, exchange: Requester) -> None:
        """`exchange` waits no longer."""
        self._waiting.remove(exchange)

    def _take(self) -> UpstreamConnection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.room:
                return connection
        for connection in self._shared:
            if connection.room > 0:
                return connection
        return None

    def _open_more(self) -> None:
        multiplexed = self.agent.protocol is not Protocol.HTTP1
        wanted = 1 if multiplexed else len(self._waiting)
        if len(self._opening) < wanted and len(self.connections) + len(self._opening) < self.limits.max_connections:
            task = self.loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        """An opening is over, well or not: whoever still waits, and counted on it, needs another."""
        self._opening.discard(task)
        if self._waiting and not task.cancelled():
            self._open_more()

    async def _open(self) -> None:
        connection: UpstreamConnection | None = None

        def factory() -> UpstreamConnection:
            return UpstreamConnection(self, self._context(self.agent) if self.agent.tls else None)

        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                _, connection = await self.loop.create_connection(factory, self.agent.host, self.agent.port)
                self.connections.add(connection)
                await connection.opened
        except (OSError, TlsFailure, ssl.SSLError, TimeoutError) as error:
            if connection is not None:
                self.connections.discard(connection)
                connection.abort()
            self._opening_failed(str(error) or type(error).__name__)
            return
        if connection.closed:
            # It was lost in the same turn of the loop: an agent that dies with connections nobody has accepted yet.
            self._opening_failed("it closed the connection before it was used")
            return
        if connection.codec is not None and connection.codec.multiplexed:
            self._shared.append(connection)
        else:
            self._idle.append(connection)
        self._serve_waiting()

    def _opening_failed(self, why: str) -> None:
        """One opening answers for one waiting exchange (HTTP/1.1) or for all of them (HTTP/2)."""
        count = 1 if self.agent.protocol is Protocol.HTTP1 else len(self._waiting)
        for _ in range(min(count, len(self._waiting))):
            self._waiting.pop().on_connect_failed(why)

    def _serve_waiting(self) -> None:
        while self._waiting:
            connection = self._take()
            if connection is None:
                break
            self._waiting.pop().on_upstream(connection)
        if self._waiting:
            self.loop.call_soon(self._open_more)

    def on_room(self, connection: UpstreamConnection) -> None:
        """A stream of `connection` was given back."""
        codec: Codec | None = connection.codec
        if codec is not None and not codec.multiplexed:
            if self.retired or connection.leaving:
                connection.finish()
            elif connection.room:
                self._idle.append(connection)
        elif (self.retired or connection.leaving) and not connection.exchanges:
            connection.finish()
        if self._waiting:
            self._serve_waiting()

    def on_going(self, connection: UpstreamConnection) -> None:
        """`connection` takes no new streams."""
        if connection in self._shared:
            self._shared.remove(connection)
        if not connection.exchanges:
            connection.finish()

    def on_connection_closed(self, connection: UpstreamConnection) -> None:
        """`connection` is gone."""
        self.connections.discard(connection)
        self._forget(connection)
        if self._waiting:
            self._open_more()

    def _forget(self, connection: UpstreamConnection) -> None:
        for pooled in (self._idle, self._shared):
            if connection in pooled:
                pooled.remove(connection)

    def _leave(self, connection: UpstreamConnection) -> None:
        """Nothing new goes over `connection`."""
        connection.leaving = True
        self._forget(connection)
        if not connection.exchanges:
            connection.finish()

    def revoke(self, revoked: frozenset[bytes]) -> None:
        """These certificates are revoked: what is under way with an agent that shows one ends at once."""
        for connection in list(self.connections):
            if not revoked.isdisjoint(connection.marks):
                self._leave(connection)  # first, so that nobody who waits is given the room that the others leave
                for exchange in list(connection.exchanges.values()):
                    exchange.revoke(_REVOKED)

    def sweep(self, now: float, wall: float) -> None:
        """Close connections that are unused for too long, too old, or silent, or whose agent's certificate has ended.

        Args:
            now: the loop's time.
            wall: seconds since the epoch.

        """
        for connection in list(self.connections):
            if connection.valid_until < wall and not connection.leaving:
                self._leave(connection)
                continue
            if now >= connection.old_at and connection.ready and not connection.leaving:
                self.lifetimes.fired(AGENT, Clock.AGE)
                self._leave(connection)
                continue
            connection.listen(now)
            stale = self.retired or now - connection.idle_since > self.limits.idle_timeout_s
            if stale and connection.ready and not connection.exchanges:
                self.lifetimes.fired(AGENT, Clock.IDLE)
                self._forget(connection)
                connection.finish()

    async def close(self) -> None:
        """End every connection and opening now."""
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for connection in list(self.connections):
            connection.abort()
