"""A caller's connection: its identity, its protocol, and its exchanges."""

from __future__ import annotations

import asyncio
import fcntl
import math
import struct
import termios
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from gateway.headers import opens_tunnel
from gateway.identity import IdentityError, Principal, SpiffeId, principal_from_certificate
from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.overload import Caller, Entry, Manners, Push
from gateway.packet.packet import CAPABILITY_DOMAIN
from gateway.proxy.arrival import Arrival
from gateway.proxy.codec import (
    Codec,
    ConnectionFailed,
    DataReceived,
    Ended,
    Event,
    GoAwayReceived,
    Http1Server,
    Http2Server,
    RequestReceived,
    RequestRefused,
    ServerCodec,
    StreamReset,
    TrailersReceived,
    Writable,
)
from gateway.proxy.connection import Connection
from gateway.proxy.exchange import Exchange
from gateway.proxy.handshakes import ArrivalLimits, site
from gateway.proxy.lifetimes import CALLER, Clock, Heading, Unread
from gateway.proxy.local import LocalExchange
from gateway.proxy.redirect import original_destination
from gateway.proxy.revocation import REVOKED, marks
from gateway.proxy.tls import TlsFailure, TlsLayer
from gateway.refusal import Reason, Refusal, answer

if TYPE_CHECKING:
    from gateway.proxy.listener import Listener

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EXPIRED = Refusal(Reason.IDENTITY_REQUIRED, "the caller's certificate has expired; connect with a new one")
_REVOKED = Refusal(Reason.IDENTITY_REQUIRED, "the caller's certificate has been revoked; connect with a new one")
_MAX_HELD_BYTES = 16_384
"""What is held for the handshake's next step; then the socket is not read until that was taken."""
LINGER_S = 2.0
"""How long a closed connection still takes bytes, so that its last answer, or GOAWAY, is not lost to a TCP reset."""
TOLD_S = 1.0
"""How long a caller that is to leave has to hear of it: for its next request over HTTP/1.1, for a PING over HTTP/2."""
ARRIVING_S = 3.0
"""How long one that has only just connected has for its first."""
UNREAD_BYTES = 1024 * 1024
"""Unsent bytes at which a caller that does not read its answers is not read any more, either."""


@dataclass(frozen=True, slots=True)
class DownstreamLimits:
    """Bounds on a caller's connection."""

    handshake_timeout_s: float = 10.0
    """From the connection's start to the end of its TLS handshake, however busy it is meanwhile."""
    headers_timeout_s: float = 10.0
    """From then to its first whole request head; later, from any head's start to its end."""
    idle_timeout_s: float = 300.0
    max_age_s: float = 3600.0
    """Then it takes no new requests, and ends with the last of those that it has."""
    unread_s: float = 30.0
    """How long a caller that leaves `UNREAD_BYTES` unread may read nothing at all; then its connection is reset."""
    max_header_bytes: int = 65536
    max_headers: int = 100
    max_concurrent_streams: int = 128
    arrivals: ArrivalLimits = field(default_factory=ArrivalLimits)


class DownstreamConnection(Connection):
    """One connection from a caller."""

    codec: ServerCodec | None

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.plane.turn, listener.plane.telemetry.defect)
        self.listener = listener
        self.plane = listener.plane
        self.exchanges: dict[int, Exchange | LocalExchange | Arrival] = {}
        self.principal: Principal | None = None
        self.valid_until = math.inf
        """Seconds since the epoch: when the caller's certificate ends."""
        self.marks: frozenset[bytes] = frozenset()
        """By which a revocation list names the certificates that the caller has shown."""
        self.opened_at = self.idle_since = self.loop.time()
        self.site = ""
        self.destination = ""
        """Where it was going when it was redirected here, a `place` or `NOWHERE`; empty where that is not asked."""
        self.shaking = listener.tls
        """The handshake is not over."""
        self._held = b""
        self._queued = False
        self.asked = False
        """A whole request head has been read."""
        self.leaving_since: float | None = None
        """The loop's time when it was first to leave."""
        self.lingering = False
        """Closed on this side; the caller may not know yet."""
        self._old_at = self.idle_since + self.plane.lifetimes.age_s(listener.limits.max_age_s)
        self._old = False
        """The next request is the last one."""
        self._heading = Heading()
        self._left = Unread()
        self._early = b""
        self._unread: asyncio.TimerHandle | None = None
        """Set while the caller is not read because it does not read."""
        self._caller: Caller | None = None
        """Once it has asked for something."""
        self._manners: Manners | None = None
        """Once it was turned away."""
        self._stale = False
        """What is read next has waited to be read for too long."""
        if not listener.tls:
            self._assume()

    # -- opening ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.site = site(self.peer)
        if self.listener.original_destination:
            self.destination = original_destination(transport.get_extra_info("socket"))
        if not self.listener.opened(self):
            self.abort()

    def shake(self) -> None:
        """Take the handshake's next step, with what has come for it."""
        self._queued = False
        data, self._held = self._held, b""
        if self.closed or self._transport is None or self._transport.is_closing():
            return
        if not self.layers:
            context = self.listener.context()
            assert context is not None
            self.layers.append(TlsLayer(context, server_side=True))
        super().data_received(data)
        self._reading(pause=False)

    def _hold(self, data: bytes) -> None:
        """Keep what has come for the handshake until it has its turn."""
        self._held += data
        if len(self._held) > _MAX_HELD_BYTES:
            self._reading(pause=True)
        if not self._queued:
            self._queued = True
            self.plane.handshakes.put(self)

    def on_handshake(self, layer: TlsLayer) -> None:
        inner = layer is not self.layers[0] or not self.listener.tls
        if not inner:
            self.shaking = False
            self.idle_since = self.loop.time()
            self.listener.shaken(self)
        self._part()
        self._check_revocation(layer)
        certificate = layer.peer_certificate()
        if certificate is not None:
            try:
                shown = principal_from_certificate(certificate)
            except IdentityError:
                # The chain is good but it names nobody: every request is answered with identity-required.
                self.listener.handshake_failed("no-spiffe-id")
                self.principal = None
            else:
                known = self.principal
                if inner and known is not None and known.not_after is not None and shown.id != known.id:
                    raise TlsFailure("two-identities", "the tunnel and what is inside it show different identities")
                self.principal = shown
                if shown.not_after is not None:
                    self.valid_until = min(self.valid_until, shown.not_after.timestamp())
                    if self.valid_until < self.plane.clock():
                        # A TLS 1.2 session that is resumed has its certificate verified no more.
                        raise TlsFailure("certificate-expired", "the certificate behind the session has ended")
        elif not inner:
            self._assume()
        if layer.alpn == "h2":
            self.codec = self._http2()
        elif layer.alpn == "http/1.1":
            self.codec = self._http1(b"https")

    def _check_revocation(self, layer: TlsLayer) -> None:
        revoked = self.plane.revoked
        if revoked is None:
            return
        self.marks |= marks(layer.peer_chain())
        if not revoked.isdisjoint(self.marks):
            # OpenSSL looked at the lists of when the handshake began.
            raise TlsFailure(REVOKED, "a list that has come meanwhile names the certificate")

    def _assume(self) -> None:
        assumed: SpiffeId | None = self.listener.assumed_principal
        self.principal = Principal(assumed) if assumed is not None else None

    def choose_codec(self, data: bytes) -> Codec | None:
        """HTTP/2 with prior knowledge, or HTTP/1.1 (RFC 9113 section 3.3)."""
        self._early += data
        seen = self._early[: len(_PREFACE)]
        if seen == _PREFACE[: len(seen)] and len(seen) < len(_PREFACE):
            return None
        early, self._early = self._early, b""
        if seen == _PREFACE:
            self.codec = self._http2()
        else:
            self.codec = self._http1(b"https" if self.layers else b"http")
        self.dispatch(self.codec.receive(early))
        return None

    def _http1(self, scheme: bytes) -> Http1Server:
        limits = self.listener.limits
        return Http1Server(scheme=scheme, max_header_bytes=limits.max_header_bytes, max_headers=limits.max_headers)

    def _http2(self) -> ServerCodec:
        limits = self.listener.limits
        return Http2Server(
            max_streams=limits.max_concurrent_streams,
            max_header_bytes=limits.max_header_bytes,
            max_headers=limits.max_headers,
            clock=self.loop.time,
        )

    def on_tls_failure(self, failure: TlsFailure) -> None:
        self.listener.handshake_failed(failure.reason)
        super().on_tls_failure(failure)

    # -- events -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.shaking:
            self._hold(data)
        elif not self.lingering:
            super().data_received(data)
            if self._stale:
                self._stale = False

    def dispatch(self, events: list[Event]) -> None:
        exchanges = self.exchanges
        for event in events:
            if type(event) is RequestReceived:
                self.asked = True
                if self.codec is not None and (self._old or self.leaving_since is not None):
                    self.codec.announce()
                if opens_tunnel(event.head) and not event.head.protocol:
                    if self._connect(event.stream, event.head):
                        self._feed_tunnel(events)
                        return
                    continue
                self._begin(event)
                continue
            if type(event) is ConnectionFailed:
                self._failed(event)
                continue
            if type(event) is RequestRefused:
                self.asked = True
                self.plane.telemetry.abuse(self.listener.name, event.abuse)
                self._answer(event.stream, Refusal(Reason.HEADERS_TOO_LARGE, event.detail))
                continue
            if isinstance(event, GoAwayReceived):
                continue
            found = exchanges.get(event.stream)
            if found is None:
                continue
            if type(event) is DataReceived:
                found.on_request_data(event.data, event.size)
            elif type(event) is Ended:
                found.on_request_end(None)
            elif type(event) is TrailersReceived:
                found.on_request_end(event.fields)
            elif type(event) is StreamReset:
                found.on_caller_gone()
            elif type(event) is Writable:
                found.downstream_writable()
        codec = self.codec
        if codec is not None and codec.backlogged:
            self.pause()

    def _begin(self, event: RequestReceived) -> None:
        """A request: the gateway's own, or the door's to let in."""
        plane, stream, head = self.plane, event.stream, event.head
        caller = self._caller
        if caller is None:
            caller = self._caller = plane.door.welcome(self.principal.id if self.principal is not None else "")
        if plane.door.level and self.codec is not None and not self.codec.multiplexed:
            self.codec.close()  # its answer says `connection: close`
        local, contexts = plane.local, plane.context_requests
        if contexts is not None and contexts.concerns(head):
            local = contexts
        if local is not None and not self.destination and (local is contexts or local.concerns(head)):
            caller.in_flight += 1
            plane.in_flight += 1
            asked = self.exchanges[stream] = LocalExchange(local, self, stream)
            asked.begin(head, ended=event.ended)
            return
        now = perf_counter()
        entry = plane.door.refuse(Entry.STALE, caller, now) if self._stale else plane.door.knock(caller, now)
        caller.in_flight += 1
        plane.in_flight += 1
        if entry is Entry.IN:
            exchange = self.exchanges[stream] = Exchange(plane, self, stream)
            exchange.begin(head, ended=event.ended)
        else:
            arrival = self.exchanges[stream] = Arrival(self, stream, caller)
            arrival.begin(head, entry, now, ended=event.ended)

    def told_to_wait(self, retry_after_s: int) -> None:
        """One of the requests was turned away; a caller that goes on all the same is held."""
        manners = self._manners
        if manners is None:
            manners = self._manners = Manners()
        push = manners.turned_away(perf_counter(), retry_after_s)
        if push is not Push.NOTHING:
            self.plane.holds.hold(self, push, manners.until)

    def let_go(self, *, stale: bool) -> None:
        """Read again; when `stale`, what is read first has waited to be read for too long."""
        if self._manners is not None:
            self._manners.forgive()
        self._stale = stale
        self.unhold()

    def _failed(self, event: ConnectionFailed) -> None:
        """The caller broke the protocol: answer where HTTP/1.1 still can, end what was under way."""
        self.plane.telemetry.abuse(self.listener.name, event.abuse or "malformed")
        reason = Reason.HEADERS_TOO_LARGE if event.too_large else Reason.MALFORMED_PACKET
        refusal = Refusal(reason, event.detail)
        found = self.exchanges.get(event.stream)
        if found is not None:
            found.refuse_bad_request(refusal)
        elif event.stream and not self.exchanges:
            self._answer(event.stream, refusal)
        if self.codec is not None and not self.codec.multiplexed:
            self.codec.finished = True  # type: ignore[misc]
        for exchange in list(self.exchanges.values()):
            exchange.on_caller_gone()

    def _answer(self, stream: int, refusal: Refusal) -> None:
        """Answer a message that never became an exchange."""
        assert self.codec is not None
        head, body = answer(refusal, content_type=b"", flight_id="", revision=self.plane.snapshot.revision)
        self.codec.send_response(stream, head, ended=False)
        self.codec.send_data(stream, body)
        self.codec.end(stream)
        self.codec.release(stream)
        self.touch()

    def _connect(self, stream: int, head: RequestHead) -> bool:
        """CONNECT: to ``*.flight.internal`` the TLS inside ends here; elsewhere there is no way out."""
        assert self.codec is not None
        host = head.authority.rpartition(b":")[0].lower()
        context = self.plane.tunnel_context(host.decode("latin-1")) if host.endswith(CAPABILITY_DOMAIN) else None
        if context is None or self.codec.multiplexed:
            where = head.authority[:100].decode("latin-1")
            detail = f"no policy allows a tunnel to {where}; CONNECT reaches names under .flight.internal"
            if self.codec.multiplexed and context is not None:
                detail = "open tunnels with an HTTP/1.1 CONNECT, or send the request itself over this connection"
            self._answer(stream, Refusal(Reason.NO_POLICY_ALLOWS, detail))
            return False
        self.codec.send_response(stream, ResponseHead(200, []), ended=False)
        self.flush()
        self.codec = None
        self.layers.append(TlsLayer(context, server_side=True))
        return True

    def _feed_tunnel(self, events: list[Event]) -> None:
        """What followed the CONNECT in the same read belongs to the TLS inside."""
        for event in events:
            if isinstance(event, DataReceived):
                self.feed(event.data, len(self.layers) - 1)

    def on_closed(self) -> None:
        self._read_again()
        self.listener.lost(self)
        for exchange in list(self.exchanges.values()):
            exchange.on_caller_gone()
        self.plane.in_flight -= len(self.exchanges)  # none are left, but for a defect
        self.exchanges.clear()
        self.plane.holds.forget(self)
        self._part()

    def _part(self) -> None:
        """The caller is gone, or turns out to be another one."""
        caller, self._caller = self._caller, None
        if caller is not None:
            self.plane.door.goodbye(caller)

    def flush(self) -> None:
        super().flush()
        if self.congested and self._unread is None and self._unsent() > UNREAD_BYTES:
            # Small answers need no window: nothing but the socket holds back who asks and never reads.
            self._read_or_not(pause=True)
            self._unread = self.loop.call_later(self.listener.limits.unread_s, self._still_unread, self._unsent())

    def _unsent(self) -> int:
        transport = self._transport
        return transport.get_write_buffer_size() if transport is not None else 0

    def _still_unread(self, before: int) -> None:
        unsent = self._unsent()
        if unsent < before:
            self._unread = self.loop.call_later(self.listener.limits.unread_s, self._still_unread, unsent)
            return
        self._unread = None
        self._part_with_reader()

    def _part_with_reader(self) -> None:
        """The caller reads too slowly to be waited for."""
        self.plane.telemetry.abuse(self.listener.name, "slow-reader")
        self.abort()

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _read_or_not(self, *, pause: bool) -> None:
        if self._unread is None:
            super()._read_or_not(pause=pause)

    def on_uncongested(self) -> None:
        if self._unread is not None:
            self._read_again()
            self._read_or_not(pause=self._paused)
        for exchange in list(self.exchanges.values()):
            exchange.downstream_writable()

    def finish(self) -> None:
        """Close in a way that lets the last answer arrive (RFC 9112 section 9.6), and the last GOAWAY."""
        if self.lingering or self._transport is None:
            return
        transport = self._transport
        self.lingering = True
        data = b""
        for layer in reversed(self.layers):
            if layer.handshaken:
                layer.close()
            data = layer.wrap(data)
        if transport.is_closing():
            return
        if data:
            transport.write(data)
        transport.write_eof()
        if not transport.is_reading():
            transport.resume_reading()
        self.loop.call_later(LINGER_S, transport.close)

    # -- what an exchange asks for ----------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The IP address that the caller connects from; empty once it is gone."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(name[0]) if name else ""

    def send_response(self, stream: int, head: ResponseHead, *, ended: bool) -> None:
        """Send a response head."""
        assert self.codec is not None
        self.codec.send_response(stream, head, ended=ended)
        self.touch()

    def send_data(self, stream: int, data: bytes) -> bool:
        """Send a piece of body; ``False`` asks the source to wait for `Exchange.downstream_writable`."""
        assert self.codec is not None
        more = self.codec.send_data(stream, data)
        self.gather(len(data))
        return more and not self.congested

    def end(self, stream: int, trailers: Fields | None) -> None:
        """End the response."""
        assert self.codec is not None
        self.codec.end(stream, trailers)
        self.touch()

    def reset(self, stream: int) -> None:
        """Break the response off, so that it cannot look whole."""
        assert self.codec is not None
        self.codec.reset(stream)
        self.touch()

    def consumed(self, stream: int, size: int) -> None:
        """Request data has been passed on."""
        assert self.codec is not None
        if self.codec.multiplexed:
            self.codec.consumed(stream, size)
            self.touch()

    def release(self, stream: int) -> None:
        """The exchange on `stream` is over."""
        if self.exchanges.pop(stream, None) is None:
            return
        if self._caller is not None:
            self._caller.in_flight -= 1
        self.plane.in_flight -= 1
        if self.codec is None:
            return
        held = self.codec.release(stream)
        if not self.exchanges:
            self.idle_since = self.loop.time()
            if self.plane.door.level and not held:
                self.drain()
        self.touch()
        self.resume()
        if held:
            # Not from within the ended exchange's own call: the next request starts on a fresh stack.
            self.loop.call_soon(self._dispatch_held, held)

    def _dispatch_held(self, held: list[Event]) -> None:
        if not self.closed:
            self.dispatch(held)
            self.flush()

    def look_at(self, now: float) -> None:
        """End what is too old, and whoever takes too long over a head, or to read; `now` is the loop's time."""
        # Nothing is added to what waits while its sources wait, or have ended.
        waiting = self._unsent() if self.congested or not self.exchanges else 0
        if self._left.untaken_s(waiting, now) >= self.plane.clocks.idle_s:
            self._part_with_reader()
            return
        codec = self.codec
        if codec is None or codec.finished or not self.asked:
            return  # a first head has a clock of its own
        if now >= self._old_at:
            self._old_at = math.inf
            self.plane.lifetimes.fired(CALLER, Clock.AGE)
            if codec.multiplexed or self.exchanges:
                self.leave(now)
            else:
                # Closed now, it could cross a request on its way: the answer to the next one says that it was the last.
                self._old = True
        elif codec.multiplexed and self.leaving_since is not None:
            self.leave(now)
        # A head after one that is still being answered may be unfinished because we do not read on.
        unfinished = codec.unfinished if not self.exchanges or codec.multiplexed else 0
        if self._heading.unfinished_s(unfinished, now) > self.listener.limits.headers_timeout_s:
            self.plane.lifetimes.fired(CALLER, Clock.HEADERS)
            self.abort()

    def expire(self) -> None:
        """The caller's certificate has ended: so does what it vouched for."""
        self._end(_EXPIRED)

    def on_revoked(self, revoked: frozenset[bytes]) -> None:
        """These certificates are revoked: what the caller's vouched for ends, if it is one of them."""
        if not revoked.isdisjoint(self.marks):
            self._end(_REVOKED)

    def _end(self, refusal: Refusal) -> None:
        for exchange in list(self.exchanges.values()):
            exchange.revoke(refusal)
        self.drain()

    def leave(self, now: float) -> None:
        """Have the caller go, without losing what it sends before it knows; to be called again until it has gone.

        A request that comes meanwhile is served.  HTTP/1.1 hears of it with its next answer, HTTP/2 at once.

        Args:
            now: the loop's time.

        """
        since = self.leaving_since
        if since is None:
            self.leaving_since = now
            if self.asked and self.codec is not None:
                self.codec.announce()
                self.touch()
            return
        shared = self.codec is not None and self.codec.multiplexed
        if self.exchanges and not shared:
            return
        since = since if shared else max(since, self.idle_since)
        waited = now - since
        if waited >= (TOLD_S if self.asked else ARRIVING_S):
            self.drain()
        if waited >= TOLD_S + ARRIVING_S and not (self.exchanges or self.lingering):
            self.abort()  # half a head, of which no more comes

    @property
    def delivered(self) -> bool:
        """Whether it is closed on this side, and the caller's system has everything that was written."""
        transport = self._transport
        if transport is None or self.closed:
            return True
        if not self.lingering or transport.get_write_buffer_size():
            return False
        unsent = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return not struct.unpack("i", unsent)[0]

    def drain(self) -> None:
        """Take no new requests; close when the open ones are done."""
        if self.codec is not None:
            self.codec.close()
            self.touch()
        elif not self.exchanges:
            self.close_transport()
