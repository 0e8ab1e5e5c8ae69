"""The load generator's HTTP/1.1 connection: one call at a time."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from bench.call import AUTHORITY, CAPABILITY, Call

_HEAD = (
    b"%b %b HTTP/1.1\r\nhost: " + AUTHORITY + b"\r\ncontent-type: application/json\r\n"
    b"flight-capability: " + CAPABILITY + b"\r\nflight-conversation: %b\r\ncontent-length: %d\r\n\r\n"
)
_CHUNK = bytes(256 * 1024)


class Http1Connection(asyncio.Protocol):
    """Writes requests, tells each call what came back."""

    capacity = 1
    """Calls at once."""

    def __init__(self) -> None:
        self.lost = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._call: Call | None = None
        self._upload = 0
        self._paused = False

    @property
    def in_flight(self) -> int:
        """Calls without their answer."""
        return self._call is not None

    def start(self, method: bytes, path: bytes, conversation: bytes, body: bytes, call: Call) -> None:
        """Send a request whose body is at hand."""
        self._call = call
        self._transport.write(_HEAD % (method, path, conversation, len(body)) + body)

    def upload(self, path: bytes, conversation: bytes, size: int, call: Call) -> None:
        """Send a request with `size` bytes of body, as fast as the peer takes them."""
        self._call = call
        self._upload = size
        self._transport.write(_HEAD % (b"POST", path, conversation, size))
        self._pump()

    def flush(self) -> None:
        """Nothing waits: `start` has written."""

    def _pump(self) -> None:
        while self._upload and not self._paused:
            piece = _CHUNK[: self._upload]
            self._upload -= len(piece)
            self._transport.write(piece)

    # -- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._call is not None:
            self._end(0)

    # -- httptools --------------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        """A piece of the answer's body."""
        assert self._call is not None
        self._call.on_data(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._end(self._parser.get_status_code())

    def _end(self, status: int) -> None:
        call, self._call = self._call, None
        assert call is not None
        call.on_end(status)
