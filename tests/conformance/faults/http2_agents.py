"""What an agent over HTTP/2 may get wrong; as in `http1_agents`."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import NamedTuple

import h2.events
import h2.exceptions

from tests.conformance.test_http2 import Peer, h2_agent
from tests.conftest import RawAgent
from tests.fuzz.frames import frame

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 7, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE = 3, 4
_REFUSED_STREAM = 7
ERROR_CODES = [code for code in range(14) if code != _REFUSED_STREAM]
"""RFC 9113 section 7."""

UPLOAD = bytes(100_000)
"""More than HTTP/2's first window."""

Act = Callable[[Peer, int], None]


class Fault(NamedTuple):
    """What an agent does on the stream of a request whose head it has read, and what its caller is told."""

    act: Act
    statuses: tuple[int, ...]
    reason: str = ""
    whole: bool = True
    timeout_ms: int = 0
    body: bytes = b""
    """Of the request."""


def number(value: int) -> bytes:
    """Four bytes."""
    return struct.pack(">I", value)


def setting(name: int, value: int) -> bytes:
    """A SETTINGS frame with one of them."""
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


def then(*acts: Act) -> Act:
    """One after the other."""

    def act(peer: Peer, stream: int) -> None:
        for each in acts:
            each(peer, stream)

    return act


def raw(kind: int, flags: int, payload: bytes, *, on_stream: bool = True) -> Act:
    """A frame that no library would write."""

    def act(peer: Peer, stream: int) -> None:
        peer.socket.sendall(frame(kind, flags, stream if on_stream else 0, payload))

    return act


def bytes_of(data: bytes) -> Act:
    """Just these."""
    return lambda peer, stream: peer.socket.sendall(data)


def begins(peer: Peer, stream: int) -> None:
    """A head, and some of a body."""
    peer.h2.send_headers(stream, [(":status", "200")])
    peer.h2.send_data(stream, b"half")
    peer.flush()


def answers(peer: Peer, stream: int) -> None:
    """All of an answer."""
    peer.h2.send_headers(stream, [(":status", "200")])
    peer.h2.send_data(stream, b"ok", end_stream=True)
    peer.flush()


def head(*fields: tuple[str, str], ended: bool = True) -> Act:
    """A head, right or wrong."""

    def act(peer: Peer, stream: int) -> None:
        block = peer.h2.encoder.encode(fields)
        peer.socket.sendall(frame(HEADERS, END_HEADERS | (END_STREAM if ended else 0), stream, block))

    return act


def silent(peer: Peer, stream: int) -> None:
    """More on this stream; the connection is served on."""


def closes(peer: Peer, stream: int) -> None:
    """The connection, at once."""
    raise EOFError


def _gives_no_window(peer: Peer, stream: int) -> None:
    peer.socket.sendall(setting(_INITIAL_WINDOW_SIZE, 0))
    peer.event(h2.events.StreamReset, stream)
    peer.socket.sendall(setting(_INITIAL_WINDOW_SIZE, 65_535))


def _shrinks_and_opens(peer: Peer, stream: int) -> None:
    peer.socket.sendall(setting(_INITIAL_WINDOW_SIZE, 0))
    received = 0
    while received < len(UPLOAD):
        for each in (stream, None):
            peer.h2.increment_flow_control_window(40_000, each)
        peer.flush()
        received += len(peer.event(h2.events.DataReceived, stream).data)
    answers(peer, stream)
    peer.socket.sendall(setting(_INITIAL_WINDOW_SIZE, 65_535))


def _floods_interim(peer: Peer, stream: int) -> None:
    block = peer.h2.encoder.encode([(":status", "103")])
    while True:
        peer.socket.sendall(frame(HEADERS, END_HEADERS, stream, block) * 100)


_RESET, _MALFORMED, _LATE = "upstream-reset", "upstream-malformed", "deadline-exceeded"
_NOT_TAKEN = (502, 503)

FAULTS: dict[str, Fault] = {
    "never-answers": Fault(silent, (504,), _LATE, timeout_ms=200),
    "closes-before-its-head": Fault(closes, (502,), _RESET),
    "closes-within-its-body": Fault(then(begins, closes), (200,), _RESET, whole=False),
    "stalls-within-its-body": Fault(then(begins, silent), (200,), _LATE, whole=False, timeout_ms=300),
    "goes-away-without-having-looked": Fault(
        then(raw(GOAWAY, 0, number(0) + number(0), on_stream=False), silent), _NOT_TAKEN
    ),
    "refuses-the-stream": Fault(raw(RST_STREAM, 0, number(_REFUSED_STREAM)), _NOT_TAKEN),
    **{f"resets-with-{code}": Fault(raw(RST_STREAM, 0, number(code)), (502,), _RESET) for code in ERROR_CODES},
    **{
        f"resets-within-its-body-with-{code}": Fault(
            then(begins, raw(RST_STREAM, 0, number(code))), (200,), _RESET, whole=False
        )
        for code in (*ERROR_CODES, _REFUSED_STREAM)
    },
    "a-window-of-nothing": Fault(_gives_no_window, (504,), _LATE, timeout_ms=300, body=UPLOAD),
    "a-window-that-shrinks-and-opens": Fault(_shrinks_and_opens, (200,), body=UPLOAD),
    "no-more-streams": Fault(then(bytes_of(setting(_MAX_CONCURRENT_STREAMS, 0)), answers), (200,)),
    "one-stream-at-a-time": Fault(then(bytes_of(setting(_MAX_CONCURRENT_STREAMS, 1)), answers), (200,)),
    "a-push": Fault(then(raw(PUSH_PROMISE, END_HEADERS, number(2) + b"\x82\x86\x84"), silent), (502,), _MALFORMED),
    "a-stream-of-its-own": Fault(then(bytes_of(frame(HEADERS, 5, 2, b"\x88")), silent), (502,), _MALFORMED),
    "data-after-its-end": Fault(then(answers, raw(DATA, 0, b"late")), (200,)),
    "a-head-after-its-end": Fault(then(answers, raw(HEADERS, END_HEADERS, b"\x88")), (200,)),
    "data-before-its-head": Fault(then(raw(DATA, 0, b"early"), silent), (502,)),
    "a-window-beyond-its-bound": Fault(
        then(raw(WINDOW_UPDATE, 0, number(2**31 - 1)), raw(WINDOW_UPDATE, 0, number(2**31 - 1)), silent), (502,)
    ),
    "a-connection-window-beyond-its-bound": Fault(
        then(*[raw(WINDOW_UPDATE, 0, number(2**31 - 1), on_stream=False)] * 2, silent), (502,), _MALFORMED
    ),
    "a-window-update-of-nothing": Fault(then(raw(WINDOW_UPDATE, 0, number(0)), silent), (502,)),
    "more-than-our-window": Fault(
        then(head((":status", "200"), ended=False), raw(DATA, 0, bytes(16_384)), *[raw(DATA, 0, bytes(16_384))] * 99),
        (200,),
        whole=False,
    ),
    "too-large-a-frame": Fault(then(bytes_of(frame(DATA, 0, 1, bytes(70_000))), silent), (502,), _MALFORMED),
    "garbage": Fault(then(bytes_of(b"HTTP/1.1 400 Bad Request\r\n\r\n"), silent), (502,), _MALFORMED),
    "bad-compression": Fault(then(raw(HEADERS, END_HEADERS, b"\xff\xff\xff\xff\xff"), silent), (502,), _MALFORMED),
    "no-status": Fault(head(("x", "y")), (502,), _RESET),
    "a-status-of-words": Fault(head((":status", "OK")), (502,), _RESET),
    "a-line-end-in-a-value": Fault(head((":status", "200"), ("x", "a\r\nb: c")), (502,), _RESET),
    "less-than-its-length": Fault(head((":status", "200"), ("content-length", "5")), (502,), _RESET),
    "interim-answers-without-end": Fault(_floods_interim, (502,), _MALFORMED),
    "a-frame-within-a-header-block": Fault(
        then(raw(HEADERS, 0, b"\x88"), raw(DATA, 0, b"x"), silent), (502,), _MALFORMED
    ),
}


def _script(peer: Peer, agent: RawAgent) -> None:
    with contextlib.suppress(EOFError, h2.exceptions.ProtocolError):
        while True:
            event = peer.event(h2.events.RequestReceived)
            fault = FAULTS.get(dict(event.headers)[":path"].strip("/"))
            (fault.act if fault is not None else answers)(peer, event.stream_id)


serve = h2_agent(_script)
