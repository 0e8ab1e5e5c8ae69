"""The HTTP/1.1 edge: a caller's bytes, and what an agent would read of what they become."""

from __future__ import annotations

import re
from collections.abc import Callable

import httptools

from gateway.headers import opens_tunnel
from gateway.messages import RequestHead, ResponseHead
from gateway.proxy.codec import Event, Http1Client, Http1Server, RequestReceived, ServerCodec
from tests.fuzz import pieces
from tests.fuzz.messages import Message, Reader
from tests.proxy.codec.plainly import as_usual, by_llhttp

_MAX_HEADER_BYTES = 8192
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 section 5.6.2."""


def check(data: bytes) -> None:
    """Where the bytes are cut and who reads them changes nothing, and every request is one for the agent, too."""
    seed, wire = data[:1], data[1:]
    whole, cut = _read([wire]), _read(pieces(wire, seed[0] if seed else 0))
    assert _told(whole) == _told(cut) == _told(_read([wire], by_llhttp))
    for message in whole.messages.values():
        check_onward(message)


def _read(parts, made: Callable[[Callable[[], Http1Server]], Http1Server] = as_usual) -> Reader:
    server = made(lambda: Http1Server(scheme=b"http", max_header_bytes=_MAX_HEADER_BYTES))
    reader = Reader()
    for part in parts:
        _serve(server, reader, server.receive(part))
    _serve(server, reader, server.receive_eof())
    return reader


def _serve(server: ServerCodec, reader: Reader, events: list[Event]) -> None:
    """Answer each request as soon as it is whole, tunnels when they are asked for."""
    while events:
        reader.take(events)
        streams = {event.stream: event for event in events if hasattr(event, "stream")}
        events = []
        for stream in streams:
            message = reader.messages.get(stream)
            if message is None or reader.failed:
                continue
            assert isinstance(message.head, RequestHead)
            if message.whole and not message.broken:
                server.send_response(stream, ResponseHead(204, []), ended=True)
                server.end(stream)
                events += server.release(stream)
        server.output()


def _told(reader: Reader) -> list[object]:
    """What does not depend on how the bytes came."""
    return [
        (stream, message.head, bytes(message.body), message.trailers, message.whole)
        for stream, message in reader.messages.items()
    ] + [bool(reader.failed)]


def _is_known(method: bytes) -> bool:
    """llhttp reads the methods that it knows; HTTP/2 has others, too."""
    try:
        httptools.HttpRequestParser(object()).feed_data(method + b" / HTTP/1.1\r\n")
    except httptools.HttpParserInvalidMethodError:
        return False
    return True


def check_onward(message: Message) -> None:
    """What goes on to an agent over HTTP/1.1 reads as this one request, and no more."""
    head = message.head
    assert isinstance(head, RequestHead)
    if opens_tunnel(head) and not head.protocol:
        return  # the gateway ends such a tunnel itself
    if not head.authority:
        return  # HTTP/1.0 may have no host; of HTTP/1.1 one is asked
    client = Http1Client(entropy=bytes)
    ended = message.whole and not message.body and message.trailers is None
    stream = client.send_request(head, ended=ended)
    if message.body:
        client.send_data(stream, bytes(message.body))
    if message.whole and not ended:
        client.end(stream, message.trailers)
    written = client.output()
    if not _is_known(head.method):
        assert _TOKEN.fullmatch(head.method), written
        assert written.startswith(head.method + b" "), written
        written = b"POST" + written.removeprefix(head.method)
        head = RequestHead(b"POST", head.scheme, head.authority, head.path, head.fields, head.protocol)
    server = Http1Server(scheme=b"http", max_header_bytes=4 * _MAX_HEADER_BYTES)
    events = server.receive(written)
    reader = Reader()
    reader.take(events)
    assert not reader.failed, (reader.failed, written)
    assert reader.heads == 1, written
    assert not server.release(1), written
    (again,) = reader.messages.values()
    seen = again.head
    assert isinstance(seen, RequestHead)
    assert (seen.authority, seen.path) == (head.authority, head.path), written
    if head.protocol:
        assert not again.body, "nothing goes into a tunnel before the agent has agreed to it"
        return
    assert seen.method == head.method, written
    assert set(seen.fields) <= set(head.fields) | {(b"content-length", b"0")}, (seen.fields, head.fields)
    assert bytes(again.body) == bytes(message.body), written
    assert again.whole == message.whole, written
    assert isinstance(events[0], RequestReceived)
