"""HTTP/2 from agents: frames that may answer our requests."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.messages import RequestHead
from gateway.proxy.codec import DataReceived, Http2Client, Writable
from tests.fuzz import pieces
from tests.fuzz.frames import SETTINGS, wire
from tests.fuzz.http2_callers import release
from tests.fuzz.messages import Reader


def check(data: bytes) -> None:
    """The codec takes whatever comes; each stream is answered at most once, and in order."""
    mode, sent = wire(data)
    _converse(mode, [SETTINGS + sent])
    _converse(mode, pieces(SETTINGS + sent, mode))


def _converse(mode: int, parts: Iterable[bytes]) -> None:
    client, reader = Http2Client(), Reader()
    open_streams = [_ask(client, number, mode) for number in range(4)]
    client.output()
    for part in parts:
        events = client.receive(part)
        reader.take(events)
        for event in events:
            if isinstance(event, DataReceived):
                client.consumed(event.stream, event.size)
            elif isinstance(event, Writable):
                client.end(event.stream, [(b"x-sum", b"7")])
        for stream in list(open_streams):
            message = reader.messages.get(stream)
            if message is not None and (message.whole or message.broken):
                open_streams.remove(stream)
                release(client, stream)
        client.output()
        if client.finished:
            assert client.receive(b"more") == []
            assert client.room == 0
        elif mode & 8 and client.room > 0:
            open_streams.append(_ask(client, len(open_streams), mode))
    if mode & 16:
        for stream in open_streams:
            client.reset(stream, cancelled=True)
            release(client, stream)
    client.output()
    if not reader.failed:
        reader.take(client.receive_eof())


def _ask(client: Http2Client, number: int, mode: int) -> int:
    """A request: without a body, with one, with one that waits for a window, or one that goes on."""
    head = RequestHead(b"POST", b"http", b"agent", b"/", [(b"x", b"y")])
    kind = number % 4
    stream = client.send_request(head, ended=kind == 0)
    if kind:
        client.send_data(stream, bytes(100_000) if kind == 2 else b"body")
    if kind == 1 or (kind == 2 and mode & 4):
        client.end(stream, [(b"x-sum", b"7")] if mode & 2 else None)
    return stream
