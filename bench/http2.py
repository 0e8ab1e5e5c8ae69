"""The load generator's HTTP/2 connection (RFC 9113): its own framing, HPACK from jh2, nothing that costs more.

It speaks to well-behaved servers only: no CONTINUATION, no padding, no push.
"""

from __future__ import annotations

import asyncio
import struct
from typing import cast

from jh2.connection import Decoder, Encoder

from bench.call import AUTHORITY, CAPABILITY, Call

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = struct.Struct(">HBBBI")
"""Length (upper 16 of 24 bits, lower 8), type, flags, stream."""
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_INITIAL_WINDOW_SIZE = 4
_MAX_FRAME = 16384
_WINDOW = 16 * 1024 * 1024
"""What the server may send unasked, per stream and in all: wide, so that nothing but its own bounds hold it back."""
_ZEROS = bytes(_MAX_FRAME)

_COMMON = [
    (b":scheme", b"https", False),
    (b":authority", AUTHORITY, False),
    (b"content-type", b"application/json", False),
    (b"flight-capability", CAPABILITY, False),
]


class Http2Error(Exception):
    """The server did what this client does not speak."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


class _Stream:
    __slots__ = ("call", "owed", "status", "upload", "window")

    def __init__(self, call: Call, window: int) -> None:
        self.call = call
        self.status = 0
        self.window = window
        """What we may still send."""
        self.upload = 0
        """What is left to send."""
        self.owed = 0
        """Received and not yet given back as window."""


class Http2Connection(asyncio.Protocol):
    """Writes requests, tells each call what came back."""

    capacity = 100

    def __init__(self) -> None:
        self.lost = False
        self.retry_after_s = 0
        """What the last answer that had a ``retry-after`` said."""
        self._transport: asyncio.Transport
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._rest = b""
        self._out: list[bytes] = []
        self._window = 65535
        self._peer_window = 65535
        self._owed = 0
        self._paused = False

    @property
    def in_flight(self) -> int:
        """Calls without their answer."""
        return len(self._streams)

    def start(self, method: bytes, path: bytes, conversation: bytes, body: bytes, call: Call) -> None:
        """Send a request whose body is at hand, at the next `flush`."""
        stream = self._open(method, path, conversation, len(body), call)
        if body:
            self._out.append(_frame(_DATA, _END_STREAM, stream, body))
            self._window -= len(body)

    def upload(self, path: bytes, conversation: bytes, size: int, call: Call) -> None:
        """Send a request with `size` bytes of body, as fast as the peer takes them."""
        stream = self._open(b"POST", path, conversation, size, call)
        self._streams[stream].upload = size
        self._pump()

    def _open(self, method: bytes, path: bytes, conversation: bytes, size: int, call: Call) -> int:
        stream, self._next = self._next, self._next + 2
        self._streams[stream] = _Stream(call, self._peer_window)
        fields = [
            (b":method", method, False),
            (b":path", path, False),
            *_COMMON,
            (b"content-length", b"%d" % size, False),
            (b"flight-conversation", conversation, False),
        ]
        flags = _END_HEADERS if size else _END_HEADERS | _END_STREAM
        self._out.append(_frame(_HEADERS, flags, stream, self._encoder.encode(fields, True)))
        return stream

    def flush(self) -> None:
        """Write what waits, as one TLS record where it fits."""
        if self._out and not self.lost:
            data = b"".join(self._out)
            self._out.clear()
            self._transport.write(data)

    def _pump(self) -> None:
        self.flush()  # a new stream's head, and the ACK that makes a wider window valid, go first
        for number, stream in self._streams.items():
            while stream.upload and not self._paused:
                size = min(stream.upload, stream.window, self._window, _MAX_FRAME)
                if size <= 0:
                    break
                stream.upload -= size
                stream.window -= size
                self._window -= size
                flags = 0 if stream.upload else _END_STREAM
                self._transport.write(_frame(_DATA, flags, number, _ZEROS[:size]))

    # -- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _WINDOW) + struct.pack(">HI", 2, 0)
        wider = struct.pack(">I", _WINDOW - 65535)
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, wider))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 9:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            until = at + 9 + (high << 8 | low)
            if until > end:
                break
            self._on_frame(kind, flags, stream, data[at + 9 : until])
            at = until
        self._rest = data[at:]
        self.flush()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        while self._streams:
            self._streams.popitem()[1].call.on_end(0)

    # -- frames -----------------------------------------------------------------------------------------

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            if not flags & _END_HEADERS or flags & (_PADDED | _PRIORITY):
                raise Http2Error("a header block in a form that the bench does not read")
            block = self._decoder.decode(payload, True)
            found = self._streams.get(stream)
            if found is not None and not found.status:  # else trailers
                status = int(block[0][1])
                found.status = status if status >= 200 else 0
                if status in (429, 503):
                    for name, value, *_ in block:
                        if name == b"retry-after":
                            self.retry_after_s = int(value)
        elif kind == _DATA:
            self._on_data(stream, payload)
        elif kind == _WINDOW_UPDATE:
            (size,) = struct.unpack(">I", payload)
            if not stream:
                self._window += size
            elif stream in self._streams:
                self._streams[stream].window += size
            self._pump()
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._on_settings(payload)
        elif kind == _PING:
            if not flags & _ACK:
                self._out.append(_frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM:
            found = self._streams.pop(stream, None)
            if found is not None:
                found.call.on_end(0)
        elif kind == _GOAWAY:
            self._transport.close()
        if flags & _END_STREAM and kind in (_DATA, _HEADERS):
            found = self._streams.pop(stream, None)
            if found is not None:
                found.call.on_end(found.status)

    def _on_data(self, stream: int, payload: bytes) -> None:
        size = len(payload)
        self._owed += size
        if self._owed >= _WINDOW // 2:
            self._out.append(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._owed)))
            self._owed = 0
        found = self._streams.get(stream)
        if found is None:
            return
        found.owed += size
        if found.owed >= _WINDOW // 2:
            self._out.append(_frame(_WINDOW_UPDATE, 0, stream, struct.pack(">I", found.owed)))
            found.owed = 0
        found.call.on_data(payload)

    def _on_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._peer_window
                self._peer_window = value
        self._out.append(_frame(_SETTINGS, _ACK, 0, b""))
        self._pump()
