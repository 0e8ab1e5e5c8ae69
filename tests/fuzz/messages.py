"""What codecs say, put together as whole messages; and whether they may say it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.headers import field_value
from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.proxy.codec import (
    ConnectionFailed,
    DataReceived,
    Ended,
    Event,
    GoAwayReceived,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Writable,
)


@dataclass
class Message:
    """One request, or one final response."""

    head: RequestHead | ResponseHead
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields | None = None
    whole: bool = False
    broken: bool = False


@dataclass
class Reader:
    """Takes a codec's events in order; raises when they make no sense."""

    messages: dict[int, Message] = field(default_factory=dict)
    """By stream."""
    interim: list[tuple[int, ResponseHead]] = field(default_factory=list)
    failed: str = ""
    heads: int = 0

    def take(self, events: list[Event]) -> None:
        """Look at each."""
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        assert not self.failed, f"{event} after the connection's failure"
        if isinstance(event, ConnectionFailed):
            assert event.detail
            self.failed = event.detail
        elif isinstance(event, RequestReceived):
            self._begin(event.stream, event.head, ended=event.ended)
        elif isinstance(event, ResponseReceived) and event.head.status < 200:
            assert event.stream not in self.messages, "an interim response after the final one"
            assert not event.ended
            assert event.head.status != 101
            assert field_value(event.head.fields, b"content-length") is None
            self.interim.append((event.stream, event.head))
        elif isinstance(event, ResponseReceived):
            self._begin(event.stream, event.head, ended=event.ended)
        elif isinstance(event, StreamReset):
            message = self.messages.get(event.stream)
            if message is not None:
                assert not message.broken, "reset twice"
                message.broken = True
        elif isinstance(event, DataReceived | Ended | TrailersReceived):
            self._go_on(event)
        else:
            assert isinstance(event, Writable | GoAwayReceived)

    def _begin(self, stream: int, head: RequestHead | ResponseHead, *, ended: bool) -> None:
        assert stream not in self.messages, "two heads on one stream"
        check_fields(head.fields)
        self.heads += 1
        self.messages[stream] = Message(head, whole=ended)

    def _go_on(self, event: DataReceived | Ended | TrailersReceived) -> None:
        message = self.messages[event.stream]
        assert not message.broken, f"{event} after a reset"
        assert not message.whole, f"{event} after the message's end"
        if isinstance(event, DataReceived):
            assert event.data
            message.body += event.data
            return
        if isinstance(event, TrailersReceived):
            check_fields(event.fields)
            message.trailers = event.fields
        message.whole = True


def check_fields(fields: Fields) -> None:
    """Names and values that can be written in any version of HTTP, and change no framing."""
    for name, value in fields:
        assert name, fields
        assert name == name.lower()
        assert not set(name) & set(b"\r\n\0: \t"), name
        assert not set(value) & set(b"\r\n\0"), (name, value)
        assert name not in (b"connection", b"transfer-encoding", b"upgrade", b"keep-alive"), name
    assert sum(name == b"content-length" for name, _ in fields) < 2, fields
