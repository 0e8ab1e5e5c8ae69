"""What a codec makes of the bytes that it received, event by event."""

from __future__ import annotations

from typing import Final

from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.value import Value


class RequestReceived(Value):
    """A request began (server side); `ended` when it has no body."""

    def __init__(self, stream: int, head: RequestHead, ended: bool) -> None:
        self.stream: Final = stream
        self.head: Final = head
        self.ended: Final = ended

    def parts(self) -> tuple[object, ...]:
        return self.stream, self.head, self.ended


class RequestRefused(Value):
    """A request's header section is over a limit: answer 431; the connection goes on (server side)."""

    def __init__(self, stream: int, detail: str, abuse: str) -> None:
        self.stream: Final = stream
        self.detail: Final = detail
        self.abuse: Final = abuse
        """As in `ConnectionFailed`."""

    def parts(self) -> tuple[object, ...]:
        return self.stream, self.detail, self.abuse


class ResponseReceived(Value):
    """A response, or an interim one (1xx), began (client side); `ended` when it has no body."""

    def __init__(self, stream: int, head: ResponseHead, ended: bool) -> None:
        self.stream: Final = stream
        self.head: Final = head
        self.ended: Final = ended

    def parts(self) -> tuple[object, ...]:
        return self.stream, self.head, self.ended


class DataReceived(Value):
    """A piece of body; `size` is what it counts for in flow control (padding included)."""

    def __init__(self, stream: int, data: bytes, size: int) -> None:
        self.stream: Final = stream
        self.data: Final = data
        self.size: Final = size

    def parts(self) -> tuple[object, ...]:
        return self.stream, self.data, self.size


class TrailersReceived(Value):
    """The message ended, with trailer fields."""

    def __init__(self, stream: int, fields: Fields) -> None:
        self.stream: Final = stream
        self.fields: Final = fields

    def parts(self) -> tuple[object, ...]:
        return self.stream, self.fields


class Ended(Value):
    """The message ended."""

    def __init__(self, stream: int) -> None:
        self.stream: Final = stream

    def parts(self) -> tuple[object, ...]:
        return (self.stream,)


class StreamReset(Value):
    """The peer broke the stream off, or broke its rules; nothing more will come of it."""

    def __init__(self, stream: int, untouched: bool = False) -> None:
        self.stream: Final = stream
        self.untouched: Final = untouched
        """The peer says that it did nothing with the request, so that another may try (REFUSED_STREAM, GOAWAY)."""

    def parts(self) -> tuple[object, ...]:
        return self.stream, self.untouched


class Writable(Value):
    """All data queued on the stream has been let through; more is welcome."""

    def __init__(self, stream: int) -> None:
        self.stream: Final = stream

    def parts(self) -> tuple[object, ...]:
        return (self.stream,)


class GoAwayReceived(Value):
    """The peer takes no new streams on this connection."""

    def parts(self) -> tuple[object, ...]:
        return ()


class ConnectionFailed(Value):
    """The peer broke the protocol: write what is pending, then close."""

    def __init__(self, detail: str, stream: int = 0, too_large: bool = False, abuse: str = "") -> None:
        self.detail: Final = detail
        self.stream: Final = stream
        """The HTTP/1.1 message at fault, when it may still be answered; 0 otherwise."""
        self.too_large: Final = too_large
        """The header section was over its limit."""
        self.abuse: Final = abuse
        """What the peer did, where that has a name: a short one of a closed set, as in `budget.ALLOWANCES`."""

    def parts(self) -> tuple[object, ...]:
        return self.detail, self.stream, self.too_large, self.abuse


Event = (
    RequestReceived
    | RequestRefused
    | ResponseReceived
    | DataReceived
    | TrailersReceived
    | Ended
    | StreamReset
    | Writable
    | GoAwayReceived
    | ConnectionFailed
)
