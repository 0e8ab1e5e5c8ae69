"""A caller's connection: its identity, its protocol, and its exchanges."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.identity import IdentityError, Principal, SpiffeId, principal_from_certificate
from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.packet.packet import CAPABILITY_DOMAIN
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
from gateway.proxy.local import LocalExchange
from gateway.proxy.tls import TlsFailure, TlsLayer
from gateway.refusal import Reason, Refusal, answer

if TYPE_CHECKING:
    from gateway.proxy.listener import Listener

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EXPIRED = Refusal(Reason.IDENTITY_REQUIRED, "the caller's certificate has expired; connect with a new one")
LINGER_S = 2.0
"""How long a closed connection still takes bytes, so that its last answer, or GOAWAY, is not lost to a TCP reset."""
UNREAD_BYTES = 1024 * 1024
"""Unsent bytes at which a caller that does not read its answers is not read any more, either."""
UNREAD_S = 30.0
"""How long it then may read nothing at all; after that the connection ends with a TCP reset."""


@dataclass(frozen=True, slots=True)
class DownstreamLimits:
    """Bounds on a caller's connection."""

    headers_timeout_s: float = 10.0
    """From the connection's start to its first whole request head, handshake included."""
    idle_timeout_s: float = 300.0
    max_header_bytes: int = 65536
    max_headers: int = 100
    max_concurrent_streams: int = 256


class DownstreamConnection(Connection):
    """One connection from a caller."""

    codec: ServerCodec | None

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.plane.loop, listener.plane.telemetry.defect)
        self.listener = listener
        self.plane = listener.plane
        self.exchanges: dict[int, Exchange | LocalExchange] = {}
        self.principal: Principal | None = None
        self.valid_until = math.inf
        """Seconds since the epoch: when the caller's certificate ends."""
        self.idle_since = self.loop.time()
        self.asked = False
        """A whole request head has been read."""
        self._early = b""
        self._lingering = False
        self._broken = False
        """The caller broke the protocol."""
        self._paused = False
        """Reading is paused for an exchange's sake."""
        self._unread: asyncio.TimerHandle | None = None
        """Set while the caller is not read because it does not read."""
        context = listener.context()
        if context is not None:
            self.layers.append(TlsLayer(context, server_side=True))
        else:
            self._assume()

    # -- opening ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.listener.opened(self)

    def on_handshake(self, layer: TlsLayer) -> None:
        inner = layer is not self.layers[0] or self.listener.context() is None
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
        elif not inner:
            self._assume()
        if layer.alpn == "h2":
            self.codec = self._http2()
        elif layer.alpn == "http/1.1":
            self.codec = self._http1(b"https")

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
        if not self._lingering:
            super().data_received(data)

    def dispatch(self, events: list[Event]) -> None:
        exchanges = self.exchanges
        for event in events:
            if isinstance(event, RequestReceived):
                self.asked = True
                if event.head.opens_tunnel and not event.head.protocol:
                    if self._connect(event.stream, event.head):
                        self._feed_tunnel(events)
                        return
                    continue
                local = self.plane.local
                exchange: Exchange | LocalExchange
                if local is not None and local.concerns(event.head):
                    exchange = LocalExchange(local, self, event.stream)
                else:
                    exchange = Exchange(self.plane, self, event.stream)
                exchanges[event.stream] = exchange
                exchange.begin(event.head, ended=event.ended)
                continue
            if isinstance(event, ConnectionFailed):
                self._failed(event)
                continue
            if isinstance(event, RequestRefused):
                self.asked = True
                self.plane.telemetry.abuse(self.listener.name, event.abuse)
                self._answer(event.stream, Refusal(Reason.HEADERS_TOO_LARGE, event.detail))
                continue
            if isinstance(event, GoAwayReceived):
                continue
            found = exchanges.get(event.stream)
            if found is None:
                continue
            if isinstance(event, DataReceived):
                found.on_request_data(event.data, event.size)
            elif isinstance(event, Ended):
                found.on_request_end(None)
            elif isinstance(event, TrailersReceived):
                found.on_request_end(event.fields)
            elif isinstance(event, StreamReset):
                found.on_caller_gone()
            elif isinstance(event, Writable):
                found.downstream_writable()
        codec = self.codec
        if codec is not None and codec.backlogged:
            self.pause()

    def _failed(self, event: ConnectionFailed) -> None:
        """The caller broke the protocol: answer where HTTP/1.1 still can, end what was under way."""
        self._broken = True
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

    def flush(self) -> None:
        super().flush()
        if self.congested and self._unread is None and self._unsent() > UNREAD_BYTES:
            # Small answers need no window: nothing but the socket holds back who asks and never reads.
            super()._reading(pause=True)
            self._unread = self.loop.call_later(UNREAD_S, self._still_unread, self._unsent())

    def _unsent(self) -> int:
        transport = self._transport
        return transport.get_write_buffer_size() if transport is not None else 0

    def _still_unread(self, before: int) -> None:
        unsent = self._unsent()
        if unsent < before:
            self._unread = self.loop.call_later(UNREAD_S, self._still_unread, unsent)
            return
        self._unread = None
        self.plane.telemetry.abuse(self.listener.name, "slow-reader")
        self.abort()

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _reading(self, *, pause: bool) -> None:
        self._paused = pause
        if self._unread is None:
            super()._reading(pause=pause)

    def on_uncongested(self) -> None:
        if self._unread is not None:
            self._read_again()
            super()._reading(pause=self._paused)
        for exchange in list(self.exchanges.values()):
            exchange.downstream_writable()

    def finish(self) -> None:
        """Close in a way that lets the last answer arrive (RFC 9112 section 9.6), or what a GOAWAY says is wrong."""
        if self._lingering or self._transport is None:
            return
        transport = self._transport
        self._lingering = True
        if self.codec is not None and self.codec.multiplexed and not self._broken:
            super().finish()  # nothing of a caller's that is on its way is unexpected
            return
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
        if self.exchanges.pop(stream, None) is None or self.codec is None:
            return
        held = self.codec.release(stream)
        if not self.exchanges:
            self.idle_since = self.loop.time()
        self.touch()
        self.resume()
        if held:
            # Not from within the ended exchange's own call: the next request starts on a fresh stack.
            self.loop.call_soon(self._dispatch_held, held)

    def _dispatch_held(self, held: list[Event]) -> None:
        if not self.closed:
            self.dispatch(held)
            self.flush()

    def expire(self) -> None:
        """The caller's certificate has ended: so does what it vouched for."""
        for exchange in list(self.exchanges.values()):
            exchange.revoke(_EXPIRED)
        self.drain()

    def drain(self) -> None:
        """Take no new requests; close when the open ones are done."""
        if self.codec is not None:
            self.codec.close()
            self.touch()
        elif not self.exchanges:
            self.close_transport()
