"""HTTP/2 from callers: frames that they may send, and what an agent would read of what they become."""

from __future__ import annotations

import random
from collections.abc import Iterable

from gateway.messages import ResponseHead
from gateway.proxy.codec import Codec, DataReceived, Http2Server, RequestReceived, Writable
from tests.fuzz import pieces
from tests.fuzz.frames import PREFACE, SETTINGS, wire
from tests.fuzz.http1_requests import check_onward
from tests.fuzz.messages import Reader


def check(data: bytes) -> None:
    """The codec takes whatever comes; each request goes on as one request, and what it was answered stays in order."""
    mode, sent = wire(data)
    _converse(mode, [PREFACE + SETTINGS + sent])
    reader = _converse(mode, pieces(PREFACE + SETTINGS + sent, mode))
    for message in reader.messages.values():
        check_onward(message)


def _converse(mode: int, parts: Iterable[bytes]) -> Reader:
    server, reader = Http2Server(max_streams=16), Reader()
    server.output()
    chance = random.Random(mode)
    for part in parts:
        events = server.receive(part)
        reader.take(events)
        for event in events:
            if isinstance(event, RequestReceived):
                _answer(server, event.stream, chance.randrange(6) if mode & 2 else 0)
            elif isinstance(event, DataReceived):
                server.consumed(event.stream, event.size)
            elif isinstance(event, Writable):
                server.end(event.stream, [(b"x-sum", b"7")])
                server.release(event.stream)
        server.output()
        if server.finished:
            assert server.receive(b"more") == []
    if mode & 4:
        server.close()
        server.output()
    if not reader.failed:
        reader.take(server.receive_eof())
    return reader


def _answer(server: Http2Server, stream: int, how: int) -> None:
    """At once and whole, in the middle of the request, too much for the window, not to the end, or not at all."""
    if how == 0:
        return
    if how == 1:
        server.reset(stream, cancelled=True)
        return
    server.send_response(stream, ResponseHead(103, []), ended=False)
    server.send_response(stream, ResponseHead(200, [(b"x", b"y")]), ended=how == 2)
    if how > 2:
        server.send_data(stream, bytes(100_000) if how == 3 else b"ok")
    if how == 4:
        server.end(stream)
    elif how == 5:
        server.reset(stream)
    release(server, stream)


def release(codec: Codec, stream: int) -> None:
    """The exchange is over; a multiplexed codec holds nothing back for it."""
    assert codec.release(stream) == []
