"""What an agent over HTTP/1.1 may get wrong.

`FAULTS` has the faults by the path that asks for them; any other path is answered as it should be.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.conftest import RawAgent

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
STALL_S = 10.0
"""Longer than any caller waits; the gateway closes the connection before."""


class Fault(NamedTuple):
    """What an agent does with a request whose head it has read, and what its caller is told."""

    act: Callable[[socket.socket], None]
    status: int
    """Of the answer; a 2xx that is not `whole` is cut off."""
    reason: str = ""
    whole: bool = True
    timeout_ms: int = 0
    """``flight-timeout`` of the packet."""


def sends(*pieces: bytes) -> Callable[[socket.socket], None]:
    """Sends these and closes."""

    def act(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return act


def stays(*pieces: bytes) -> Callable[[socket.socket], None]:
    """Sends these, then nothing, and does not close either."""

    def act(connection: socket.socket) -> None:
        sends(*pieces)(connection)
        wait_for_close(connection)

    return act


def endless(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Sends `start`, then `piece` for ever."""

    def act(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)

    return act


def resets(*pieces: bytes) -> Callable[[socket.socket], None]:
    """Sends these, waits until they have arrived, and resets the connection."""

    def act(connection: socket.socket) -> None:
        sends(*pieces)(connection)
        time.sleep(0.1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return act


def wait_for_close(connection: socket.socket) -> None:
    """Read until the gateway has had enough."""
    connection.settimeout(STALL_S)
    with contextlib.suppress(TimeoutError, OSError):
        while connection.recv(65536):
            pass


def _half_closes_first(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    wait_for_close(connection)


def _half_closes_after(connection: socket.socket) -> None:
    connection.sendall(OK)
    connection.shutdown(socket.SHUT_WR)
    wait_for_close(connection)


def _byte_by_byte(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in OK:
        connection.sendall(bytes([byte]))
    connection.shutdown(socket.SHUT_WR)
    wait_for_close(connection)


_RESET, _MALFORMED, _LATE = "upstream-reset", "upstream-malformed", "deadline-exceeded"
_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"

FAULTS: dict[str, Fault] = {
    "never-answers": Fault(stays(), 504, _LATE, timeout_ms=200),
    "closes-before-its-head": Fault(sends(), 502, _RESET),
    "closes-within-its-head": Fault(sends(b"HTTP/1.1 200 OK\r\ncontent-le"), 502, _RESET),
    "resets-before-its-head": Fault(resets(), 502, _RESET),
    "half-closes-before-its-head": Fault(_half_closes_first, 502, _RESET),
    "half-closes-after-its-answer": Fault(_half_closes_after, 200),
    "closes-within-its-body": Fault(sends(_LENGTH + b"half"), 200, _RESET, whole=False),
    "closes-between-chunks": Fault(sends(CHUNKED + b"4\r\nhalf\r\n"), 200, _RESET, whole=False),
    "resets-within-its-body": Fault(resets(_LENGTH + b"half"), 200, _RESET, whole=False),
    "stalls-within-its-head": Fault(stays(b"HTTP/1.1 200 OK\r\n"), 504, _LATE, timeout_ms=200),
    "stalls-within-its-body": Fault(stays(_LENGTH + b"half"), 200, _LATE, whole=False, timeout_ms=300),
    "a-body-without-end": Fault(endless(CHUNKED, b"ffff\r\n" + bytes(65_535) + b"\r\n"), 200, _LATE, False, 300),
    "one-byte-at-a-time": Fault(_byte_by_byte, 200),
    "garbage": Fault(stays(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 502, _MALFORMED),
    "another-protocol": Fault(stays(b"SSH-2.0-OpenSSH_9.2\r\n"), 502, _MALFORMED),
    "headers-without-end": Fault(endless(b"HTTP/1.1 200 OK\r\n", b"x-more: of the same\r\n" * 100), 502, _MALFORMED),
    "a-field-without-end": Fault(endless(b"HTTP/1.1 200 OK\r\nx: ", b"a" * 10_000), 502, _MALFORMED),
    "too-large-a-field": Fault(
        stays(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n"), 502, _MALFORMED
    ),
    "more-than-its-length": Fault(stays(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok, and more"), 200),
    "a-second-answer": Fault(stays(OK + OK.replace(b"ok", b"no")), 200),
    "a-body-that-204-cannot-have": Fault(stays(b"HTTP/1.1 204 No Content\r\n\r\n2\r\nok\r\n"), 204),
    "both-lengths": Fault(
        stays(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), 502, _MALFORMED
    ),
    "two-lengths": Fault(
        stays(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!"), 502, _MALFORMED
    ),
    "a-bad-chunk": Fault(stays(CHUNKED + b"2\r\nok\r\nzz\r\n"), 200, _MALFORMED, whole=False),
    "a-chunk-longer-than-it-says": Fault(stays(CHUNKED + b"1\r\nok\r\n0\r\n\r\n"), 200, _MALFORMED, whole=False),
    "bad-trailers": Fault(stays(CHUNKED + b"2\r\nok\r\n0\r\nno colon\r\n\r\n"), 200, _MALFORMED, whole=False),
    "trailers-without-end": Fault(
        endless(CHUNKED + b"2\r\nok\r\n0\r\n", b"x-more: of the same\r\n" * 100), 200, _MALFORMED, whole=False
    ),
    "no-number-for-a-status": Fault(stays(b"HTTP/1.1 OK 200\r\n\r\n"), 502, _MALFORMED),
    "a-status-below-100": Fault(stays(b"HTTP/1.1 099 Hm\r\ncontent-length: 0\r\n\r\n"), 502, _MALFORMED),
    "an-upgrade-nobody-asked-for": Fault(
        stays(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"), 502, _MALFORMED
    ),
    "interim-answers-without-end": Fault(endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100), 502, _MALFORMED),
}


def serve(agent: RawAgent, connection: socket.socket) -> None:
    """Does as the request's path asks, or answers it."""
    while True:
        head = agent.read_head(connection)
        fault = FAULTS.get(head.split(b" ", 2)[1].decode().strip("/"))
        if fault is not None:
            fault.act(connection)
            return
        connection.sendall(OK)
