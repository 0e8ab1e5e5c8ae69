"""Many idle mTLS connections: `python -m bench.idle …` prints one line of JSON."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from bench.call import AUTHORITY, BODY, CAPABILITY
from bench.client import tls_context
from bench.load import quantile
from bench.machine import raise_file_limit
from bench.process import BenchFailure, Watch

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""With empty SETTINGS (RFC 9113 section 3.4)."""
_OTHER_FILES = 64
_INTERVAL_S = 0.005
_SETTLE_S = 1.5
_TIMEOUT_S = 10.0


def _connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
    return context.wrap_socket(raw, server_hostname="localhost")


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
        held = [stack.enter_context(_connect(port, context)) for _ in range(count)]
        for each in held:
            each.sendall(_PREFACE)
        cpu = watch.cpu_s() - cpu
        time.sleep(_SETTLE_S)
        rss, idle_cpu = watch.rss_bytes() - before, watch.cpu_s()
        time.sleep(seconds)
        idle_cpu = watch.cpu_s() - idle_cpu
        beside = caller.ask(seconds)
        for each in (held[0], held[-1]):
            each.settimeout(_TIMEOUT_S)
            if not each.recv(9):
                raise BenchFailure("the gateway closed an idle connection")
    print(
        json.dumps(
            {
                "connections": count,
                "rss_growth": rss,
                "rss_per_connection": rss / count,
                "cpu_ms_per_handshake": cpu / count * 1000,
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
