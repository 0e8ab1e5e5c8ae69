"""The bench's connections, for packets with an id that may be cancelled, as well-behaved callers have them."""

from __future__ import annotations

import struct
from typing import Protocol

from bench import http2
from bench.call import AUTHORITY, Call
from bench.http1 import Http1Connection
from bench.http2 import Http2Connection

UNTAKEN = -2
"""What is told of a packet that the gateway took no notice of: it may be sent again (RFC 9113 section 6.8)."""
_CANCEL = b"\x00\x00\x00\x08"
_HEAD = (
    b"%b %b HTTP/1.1\r\nhost: " + AUTHORITY + b"\r\nflight-capability: code.execute\r\n"
    b'flight-id: "%b"\r\nflight-conversation: "%b"\r\ncontent-length: %d\r\n\r\n%b'
)


class Connection(Protocol):
    """Either of them."""

    capacity: int
    lost: bool
    going: bool
    in_flight: int
    retry_after_s: int
    """What the last answer that had a ``retry-after`` said."""
    rests_until: float
    """Nothing is sent on it before, by the monotonic clock."""

    def ask(self, method: bytes, path: bytes, packet: bytes, conversation: bytes, body: bytes, call: Call) -> int:
        """Send a packet; gives its stream."""

    def cancel(self, stream: int) -> None:
        """Break it off; its call is told nothing more."""

    def flush(self) -> None:
        """Write what waits."""


class OverHttp2(Http2Connection):
    """Many packets at once; goes when it is told to, after the last answer."""

    going = False
    rests_until = 0.0

    def ask(self, method: bytes, path: bytes, packet: bytes, conversation: bytes, body: bytes, call: Call) -> int:
        stream, self._next = self._next, self._next + 2
        self._streams[stream] = http2._Stream(call, self._peer_window)
        fields = [
            (b":method", method, False),
            (b":path", path, False),
            *http2._COMMON,
            (b"content-length", b"%d" % len(body), False),
            (b"flight-id", b'"%b"' % packet, False),
            (b"flight-conversation", b'"%b"' % conversation, False),
        ]
        flags = http2._END_HEADERS if body else http2._END_HEADERS | http2._END_STREAM
        self._out.append(http2._frame(http2._HEADERS, flags, stream, self._encoder.encode(fields, True)))
        if body:
            self._out.append(http2._frame(http2._DATA, http2._END_STREAM, stream, body))
            self._window -= len(body)
        return stream

    def cancel(self, stream: int) -> None:
        if self._streams.pop(stream, None) is not None:
            self._out.append(http2._frame(http2._RST_STREAM, 0, stream, _CANCEL))
            self.flush()

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == http2._GOAWAY:
            self.going = True
            (last,) = struct.unpack_from(">I", payload)
            for untaken in [each for each in self._streams if each > last]:
                self._streams.pop(untaken).call.on_end(UNTAKEN)
        else:
            super()._on_frame(kind, flags, stream, payload)
        if self.going and not self._streams:
            self._transport.close()


class OverHttp1(Http1Connection):
    """One packet at a time."""

    going = False
    retry_after_s = 0
    rests_until = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field of the answer."""
        if name.lower() == b"retry-after":
            self.retry_after_s = int(value)

    def ask(self, method: bytes, path: bytes, packet: bytes, conversation: bytes, body: bytes, call: Call) -> int:
        self._call = call
        self._transport.write(_HEAD % (method, path, packet, conversation, len(body), body))
        return 0

    def cancel(self, stream: int) -> None:
        self._call = None
        self.lost = True
        self._transport.close()
