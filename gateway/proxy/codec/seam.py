"""The codec seam: what goes into a connection and comes out of it, whichever protocol it speaks.

A stream is one exchange on a connection.  HTTP/1.1 numbers its messages as HTTP/2 numbers its streams, so that
nothing above needs to know which it is.
"""

from __future__ import annotations

from typing import Protocol

from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.proxy.codec.events import Event


class Codec(Protocol):
    """What both sides of both protocols share."""

    @property
    def multiplexed(self) -> bool:
        """Whether streams run side by side and flow control is per stream."""

    @property
    def finished(self) -> bool:
        """Whether the connection is to be closed once pending bytes are written."""

    @property
    def aborted(self) -> bool:
        """Whether the connection must end with a TCP reset, so that a cut body never looks whole."""

    @property
    def name(self) -> str:
        """``h2`` or ``http/1.1``."""

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer; never raises for what a peer can send."""

    def receive_eof(self) -> list[Event]:
        """The peer will send no more."""

    def output(self) -> bytes:
        """Bytes to write, each given out once."""

    def send_data(self, stream: int, data: bytes) -> bool:
        """Send a piece of body; ``False`` when it was queued and a `Writable` will follow."""

    def end(self, stream: int, trailers: Fields | None = None) -> None:
        """End the message on `stream`."""

    def reset(self, stream: int, *, cancelled: bool = False) -> None:
        """Break the stream off; `cancelled` when the other side went away rather than failed."""

    def consumed(self, stream: int, size: int) -> None:
        """`size` units of received data have been passed on; the peer may send as much again."""

    def release(self, stream: int) -> list[Event]:
        """The exchange on `stream` is over on our side; gives the events held back until then."""

    def close(self) -> None:
        """Take no new streams; the open ones may finish."""


class ServerCodec(Codec, Protocol):
    """The side that answers requests."""

    @property
    def backlogged(self) -> bool:
        """Whether events are held back until `release`, so that reading should pause."""

    @property
    def unfinished(self) -> int:
        """The stream of which a header section has begun and not ended; 0 when there is none."""

    def announce(self) -> None:
        """Tell the peer that this connection is about to close; what it sends before it knows is still served."""

    def send_response(self, stream: int, head: ResponseHead, *, ended: bool) -> None:
        """Send an interim or final response head."""


class ClientCodec(Codec, Protocol):
    """The side that sends requests."""

    @property
    def room(self) -> int:
        """How many more streams may be opened now."""

    def send_request(self, head: RequestHead, *, ended: bool) -> int:
        """Open a stream with a request head and return its number."""

    def ping(self) -> None:
        """Ask for a sign of life, where the protocol has one."""
