"""Many idle mTLS connections: `python -m bench.idle …` prints one line of JSON."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from jh2.connection import Encoder

from bench.call import AUTHORITY, BODY, CAPABILITY
from bench.client import tls_context
from bench.load import quantile
from bench.machine import raise_file_limit
from bench.process import BenchFailure, Watch

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""With empty SETTINGS (RFC 9113 section 3.4)."""
_FRAME = struct.Struct(">HBBBI")
"""Length (upper 16 of 24 bits, lower 8), type, flags, stream."""
_DATA, _HEADERS, _END_STREAM, _END_HEADERS = 0, 1, 0x1, 0x4
_OTHER_FILES = 64
_INTERVAL_S = 0.005
_SETTLE_S = 1.5
_TIMEOUT_S = 10.0


def _connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
    # As every HTTP client does: else the request waits for the handshake's acknowledgement, up to 40 ms.
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw, server_hostname="localhost")


def _connect_and_ask(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection that has had one answer: one that never asked is closed by the headers clock."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", AUTHORITY),
        (b":path", b"/run"),
        (b"flight-capability", CAPABILITY),
    ]
    block = Encoder().encode([(name, value, False) for name, value in fields])
    secure = _connect(port, context)
    head = _FRAME.pack(len(block) >> 8, len(block) & 0xFF, _HEADERS, _END_HEADERS | _END_STREAM, 1)
    secure.sendall(_PREFACE + head + block)
    buffered = b""
    while True:
        while len(buffered) >= _FRAME.size:
            upper, lower, kind, flags, _ = _FRAME.unpack_from(buffered)
            size = _FRAME.size + (upper << 8 | lower)
            if len(buffered) < size:
                break
            buffered = buffered[size:]
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                return secure
        piece = secure.recv(65536)
        if not piece:
            raise BenchFailure("the gateway closed a connection instead of answering")
        buffered += piece


def _is_open(connection: ssl.SSLSocket) -> bool:
    connection.settimeout(0)
    try:
        while connection.recv(4096):  # acknowledgements
            pass
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False
    return False


class _Caller:
    """Somebody else, with one request at a time."""

    def __init__(self, port: int, certs: Path) -> None:
        self._socket = _connect(port, tls_context(certs, "http/1.1"))
        head = b"POST /run HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\n" % AUTHORITY
        self._request = b"%sflight-capability: %s\r\ncontent-length: %d\r\n\r\n%s" % (head, CAPABILITY, len(BODY), BODY)

    def ask(self, seconds: float) -> list[float]:
        """How long each request took that was sent within `seconds`, sorted."""
        took = []
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            self._socket.sendall(self._request)
            self._read_answer()
            took.append(time.monotonic() - began)
            time.sleep(_INTERVAL_S)
        return sorted(took)

    def _read_answer(self) -> None:
        answer = b""
        while True:
            piece = self._socket.recv(65536)
            if not piece:
                raise BenchFailure("the gateway closed the connection that asks")
            answer += piece
            head, found, body = answer.partition(b"\r\n\r\n")
            if not found:
                continue
            if not head.startswith(b"HTTP/1.1 200"):
                raise BenchFailure(f"the gateway answered {head[:100]!r}")
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            if len(body) >= int(fields[b"content-length"]):
                return


def main(
    port: Annotated[int, typer.Option(help="Where to connect.")],
    certs: Annotated[Path, typer.Option(help="The SVIDs' folder.")],
    pid: Annotated[int, typer.Option(help="The process whose memory is measured, children included.")],
    connections: Annotated[int, typer.Option(help="How many, where the system allows them.")] = 10_000,
    seconds: Annotated[float, typer.Option(help="Of others' requests, without and with them.")] = 5.0,
) -> None:
    """Idle HTTP/2 connections over mTLS: what each costs in memory, and what others' requests take beside them."""
    raise_file_limit()
    count = min(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES)
    watch = Watch(pid)
    context = tls_context(certs, "h2")
    caller = _Caller(port, certs)
    caller.ask(1.0)
    alone = caller.ask(seconds)
    before, cpu = watch.rss_bytes(), watch.cpu_s()
    with ExitStack() as stack:
        held = [stack.enter_context(_connect_and_ask(port, context)) for _ in range(count)]
        cpu = watch.cpu_s() - cpu
        time.sleep(_SETTLE_S)
        rss, idle_cpu = watch.rss_bytes() - before, watch.cpu_s()
        time.sleep(seconds)
        idle_cpu = watch.cpu_s() - idle_cpu
        beside = caller.ask(seconds)
        if lost := sum(not _is_open(each) for each in held):
            raise BenchFailure(f"the gateway closed {lost} of {count} idle connections")
    print(
        json.dumps(
            {
                "connections": count,
                "rss_growth": rss,
                "rss_per_connection": rss / count,
                "cpu_ms_per_opening": cpu / count * 1000,
                "idle_cpu_share": idle_cpu / seconds,
                "p50_alone_ms": quantile(alone, 0.50) * 1000,
                "p99_alone_ms": quantile(alone, 0.99) * 1000,
                "p50_beside_ms": quantile(beside, 0.50) * 1000,
                "p99_beside_ms": quantile(beside, 0.99) * 1000,
            }
        )
    )


if __name__ == "__main__":
    typer.run(main)
