"""One socket: TCP, the TLS layers on it, and the codec on top.

What callers' and agents' connections share: bytes travel up through the layers to the codec's events, and the
codec's output travels down again, gathered into one write per turn of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Protocol, cast

from gateway.proxy.codec import Codec, Event
from gateway.proxy.tls import TlsFailure, TlsLayer
from gateway.proxy.turn import Turn

log = logging.getLogger(__name__)

WRITE_HIGH_WATER_BYTES = 256 * 1024
"""Unsent bytes on a socket at which its sources are told to wait."""

KEEP_ALIVE_IDLE_S, KEEP_ALIVE_INTERVAL_S, KEEP_ALIVE_PROBES = 15, 5, 3
"""After so long a silence the kernel asks the peer's, so often and so many times: who vanished is missed in 30 s."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time


class Adjustable(Protocol):
    """What can be told how to be a socket."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """Set one option."""


def keep_alive(raw: Adjustable) -> None:
    """Have the kernel notice when the peer has vanished, even while nothing is said."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_PROBES)


class Connection(asyncio.Protocol):
    """A transport, its TLS layers (outermost first) and its codec."""

    def __init__(self, turn: Turn, on_defect: Callable[[], None]) -> None:
        self.loop = turn.loop
        self.turn = turn
        self.layers: list[TlsLayer] = []
        self.codec: Codec | None = None
        self.congested = False
        """The socket takes no more for now."""
        self.closed = False
        self._on_hold = False
        """Nothing is read, whoever would."""
        self._paused = False
        """Reading is paused for an exchange's sake; most never are, and `resume` is called for each request."""
        self._transport: asyncio.Transport | None = None
        self._in_turn = False
        self._flush_due = False
        self._gathered = 0
        """Bytes of body given to the codec since the last flush."""
        self._on_defect = on_defect

    # -- asyncio ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        self._in_turn = True
        try:
            self.feed(data, 0)
            self.flush()
        except TlsFailure as failure:
            self.on_tls_failure(failure)
        except Exception:
            self._close_by_defect()
        finally:
            self._in_turn = False

    def _close_by_defect(self) -> None:
        """A defect of ours must cost this connection only, and never pass for a whole message."""
        self._on_defect()
        log.exception("a connection was closed by a defect")
        self.abort()

    def eof_received(self) -> bool:
        if self.codec is not None and not self.closed:
            self._in_turn = True
            self.dispatch(self.codec.receive_eof())
            self._in_turn = False
            self.flush()
        self.close_transport()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self.on_closed()

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self.on_uncongested()

    # -- up ---------------------------------------------------------------------------------------------

    def feed(self, data: bytes, level: int) -> None:
        """Take bytes that arrived under layer `level`."""
        layers = self.layers
        while level < len(layers):
            layer = layers[level]
            before = layer.handshaken
            data = layer.receive(data)
            level += 1
            if layer.handshaken and not before:
                self.on_handshake(layer)
            if layer.peer_closed and level == len(layers) and not data:
                if self.codec is not None:
                    self.dispatch(self.codec.receive_eof())
                return
        if data:
            codec = self.codec or self.choose_codec(data)
            if codec is not None:
                self.dispatch(codec.receive(data))

    def dispatch(self, events: list[Event]) -> None:
        """Act on the codec's events."""
        raise NotImplementedError

    def choose_codec(self, data: bytes) -> Codec | None:
        """The codec for a connection whose first bytes are `data`; ``None`` drops them."""
        return None

    def on_handshake(self, layer: TlsLayer) -> None:
        """A TLS layer finished its handshake."""

    def on_tls_failure(self, failure: TlsFailure) -> None:
        """A TLS layer failed; an alert may be pending."""
        self.flush()
        self.close_transport()

    def on_closed(self) -> None:
        """The socket is gone."""

    def on_uncongested(self) -> None:
        """The socket takes bytes again."""

    # -- down -------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """The codec has output: write it at the end of this turn."""
        if not self._in_turn and not self._flush_due:
            self._flush_due = True
            self.turn.note(self)

    def end_turn(self) -> None:
        """Write what has been gathered, if it has not been written."""
        if self._flush_due:
            try:
                self.flush()
            except Exception:
                self._close_by_defect()

    def gather(self, size: int) -> None:
        """The codec has `size` more bytes of body: many are written at once, for one turn can read megabytes."""
        self._gathered += size
        if self._gathered < WRITE_HIGH_WATER_BYTES:
            self.touch()
        else:
            self.flush()

    def flush(self) -> None:
        """Write what the codec and the layers have, and close if the codec is finished."""
        self._flush_due = False
        self._gathered = 0
        transport = self._transport
        if transport is None or self.closed:
            return
        codec = self.codec
        data = codec.output() if codec is not None else b""
        for layer in reversed(self.layers):
            data = layer.wrap(data)
        if data and not transport.is_closing():
            transport.write(data)
        if codec is not None and codec.finished:
            if codec.aborted:
                self.abort()
            else:
                self.finish()

    def finish(self) -> None:
        """Close after the codec's last bytes."""
        for layer in reversed(self.layers):
            if layer.handshaken:
                layer.close()
        data = b""
        for layer in reversed(self.layers):
            data = layer.wrap(data)
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
        self.close_transport()

    def pause(self) -> None:
        """Read no more from the socket, where that holds back one stream only (HTTP/1.1)."""
        if self.codec is not None and not self.codec.multiplexed:
            self._reading(pause=True)

    def resume(self) -> None:
        """Undo `pause`."""
        if self._paused and self.codec is not None and not self.codec.multiplexed:
            self._reading(pause=False)

    def hold(self) -> None:
        """Read no more from the socket, whatever it carries, until `unhold`."""
        self._reading(pause=True)
        self._on_hold = True

    def unhold(self) -> None:
        """Undo `hold`."""
        self._on_hold = False
        self._reading(pause=False)

    def _reading(self, *, pause: bool) -> None:
        self._paused = pause
        self._read_or_not(pause=pause)

    def _read_or_not(self, *, pause: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._on_hold:
            return
        if pause and transport.is_reading():
            transport.pause_reading()
        elif not pause and not transport.is_reading():
            transport.resume_reading()

    def close_transport(self) -> None:
        """Close the socket once what is written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the socket now, with a TCP reset: whoever reads it cannot take what came for the whole."""
        transport = self._transport
        if transport is None:
            return
        if not self.closed and (raw := transport.get_extra_info("socket")) is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
