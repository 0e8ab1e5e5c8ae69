"""What a caller may get wrong: each does it on a connection of its own, in the clear, and returns when it is done."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import h2.errors

from tests.conformance.test_http2 import HEADERS, Peer, connect
from tests.conftest import RunningGateway

HEAD = b"POST /%s HTTP/1.1\r\nhost: gateway\r\nflight-capability: fault.http1\r\n"
FINE, SLOW = b"fine", b"never-answers"
"""Paths of `http1_agents`."""


def _open(gateway: RunningGateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.plain_port), 5)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def sends(*pieces: bytes, ends: Callable[[socket.socket], None] = socket.socket.close) -> Callable[..., None]:
    """Sends these and goes."""

    def act(gateway: RunningGateway) -> None:
        connection = _open(gateway)
        for piece in pieces:
            connection.sendall(piece)
        ends(connection)

    return act


def reads_some(path: bytes, size: int) -> Callable[..., None]:
    """Asks, reads so much of the answer, and goes with a reset."""

    def act(gateway: RunningGateway) -> None:
        connection = _open(gateway)
        connection.sendall(HEAD % path + b"content-length: 0\r\n\r\n")
        while size and len(connection.recv(size)) == 0:
            pass
        _reset(connection)

    return act


def _half_closes(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass
    connection.close()


def _over_http2(act: Callable[[Peer, int], None], *, ended: bool = False) -> Callable[..., None]:
    def acts(gateway: RunningGateway) -> None:
        peer = connect(gateway)
        fields = {":path": "/never-answers", "flight-capability": "fault.http1"}
        act(peer, peer.request([(name, fields.get(name, value)) for name, value in HEADERS], ended=ended))
        peer.socket.close()

    return acts


def _resets_upload(peer: Peer, stream: int) -> None:
    peer.h2.send_data(stream, bytes(10_000))
    peer.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    peer.flush()


def _goes_away(peer: Peer, stream: int) -> None:
    peer.h2.close_connection()
    peer.flush()


FAULTS: dict[str, Callable[[RunningGateway], None]] = {
    "goes at once": sends(),
    "resets at once": sends(ends=_reset),
    "goes within its head": sends(HEAD % FINE + b"x: "),
    "half-closes within its head": sends(HEAD % FINE + b"x: ", ends=_half_closes),
    "goes within its body": sends(HEAD % FINE + b"content-length: 100\r\n\r\nsome"),
    "resets within its body": sends(HEAD % SLOW + b"content-length: 100\r\n\r\nsome", ends=_reset),
    "goes within a chunk": sends(HEAD % SLOW + b"transfer-encoding: chunked\r\n\r\n9\r\nsome"),
    "half-closes within its body": sends(HEAD % SLOW + b"content-length: 9\r\n\r\nsome", ends=_half_closes),
    "half-closes after its request": sends(HEAD % SLOW + b"content-length: 0\r\n\r\n", ends=_half_closes),
    "goes before its answer": sends(HEAD % SLOW + b"content-length: 0\r\n\r\n"),
    "resets before its answer": sends(HEAD % SLOW + b"content-length: 0\r\n\r\n", ends=_reset),
    "resets within its answer": reads_some(b"stalls-within-its-body", 1),
    "resets within an answer without end": reads_some(b"a-body-without-end", 100_000),
    "sends garbage": sends(b"\x00\x01\x02\x03 what is this?\r\n\r\n"),
    "sends garbage after its request": sends(HEAD % SLOW + b"content-length: 0\r\n\r\n\x00\x01\x02"),
    "goes in the middle of many": sends((HEAD % FINE + b"content-length: 0\r\n\r\n") * 20),
    "resets its upload over HTTP/2": _over_http2(_resets_upload),
    "goes within its body over HTTP/2": _over_http2(lambda peer, stream: None),
    "goes before its answer over HTTP/2": _over_http2(lambda peer, stream: None, ended=True),
    "says GOAWAY before its answer": _over_http2(_goes_away, ended=True),
}
