"""An agent's bytes over HTTP/1.1, and what a caller would read of what they become."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.messages import RequestHead, ResponseHead
from gateway.proxy.codec import Http1Client, Http1Server
from tests.fuzz import pieces
from tests.fuzz.messages import Message, Reader
from tests.proxy.codec.plainly import as_usual, by_llhttp

_METHODS = (b"POST", b"HEAD", b"GET")


def check(data: bytes) -> None:
    """Where the bytes are cut and who reads them changes nothing, and every answer is one for the caller, too."""
    mode, wire = (data[0] if data else 0), data[1:]
    method = _METHODS[mode % 3]
    protocol = b"websocket" if mode & 0x40 and method == b"GET" else b""
    whole, cut = (_read(method, protocol, parts) for parts in ([wire], pieces(wire, mode)))
    assert _told(whole) == _told(cut) == _told(_read(method, protocol, [wire], by_llhttp))
    for _, head in whole.interim:
        assert head.status != 101
    if not protocol:
        for message in whole.messages.values():
            _check_onward(method, message)


def _read(
    method: bytes,
    protocol: bytes,
    parts: Iterable[bytes],
    made: Callable[[Callable[[], Http1Client]], Http1Client] = as_usual,
) -> Reader:
    client = made(lambda: Http1Client(entropy=bytes, max_header_bytes=8192))
    head = RequestHead(b"CONNECT" if protocol else method, b"http", b"agent", b"/", [], protocol)
    stream = client.send_request(head, ended=not protocol)
    client.output()
    reader = Reader()
    for part in parts:
        reader.take(client.receive(part))
    if not reader.failed:
        reader.take(client.receive_eof())
    client.release(stream)
    client.output()
    return reader


def _told(reader: Reader) -> list[object]:
    told: list[object] = [
        (message.head, bytes(message.body), message.trailers, message.whole, message.broken)
        for message in reader.messages.values()
    ]
    return [*told, reader.interim, bool(reader.failed)]


def _check_onward(method: bytes, message: Message) -> None:
    head = message.head
    assert isinstance(head, ResponseHead)
    server = Http1Server(scheme=b"http")
    server.receive(method + b" / HTTP/1.1\r\nhost: g\r\n\r\n")
    ended = message.whole and not message.body and message.trailers is None
    server.send_response(1, head, ended=ended)
    if message.body:
        server.send_data(1, bytes(message.body))
    if message.whole and not ended:
        server.end(1, message.trailers)
    written = server.output()
    again = Http1Client(entropy=bytes)
    again.send_request(RequestHead(method, b"http", b"g", b"/", []), ended=True)
    reader = Reader()
    reader.take(again.receive(written))
    assert not reader.failed, (reader.failed, written)
    assert reader.heads == 1, written
    (seen,) = reader.messages.values()
    assert isinstance(seen.head, ResponseHead)
    assert seen.head.status == head.status
    assert bytes(seen.body) == bytes(message.body), written
    assert seen.whole == message.whole, written
