"""Eight agents and an OTLP sink in one process, cheap enough to share a core with the load.

`python -m bench.agents CERTS` prints one line of JSON with its ports and serves until it is killed.
Each agent is there twice: in plaintext on every loopback address, and by mTLS.
``POST /run`` answers a small JSON document, ``/work?ms=I`` the same after so long;
``/sse?interval_ms=I&n=N`` sends N events that carry the time of their
sending (CLOCK_MONOTONIC, ns); ``/sink`` takes any body; ``/source?bytes=N`` gives one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs

import httptools
import uvloop

from bench.machine import raise_file_limit
from bench.otlp import OtlpSink

AGENTS = 8
_CHUNK = bytes(256 * 1024)


def _answer(body: bytes, name: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-served-by: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        name.encode(),
        len(body),
        body,
    )


class Agent(asyncio.Protocol):
    """One connection to an agent."""

    def __init__(self, name: str) -> None:
        self._run = _answer(b'{"status":"done","output":"45","usage":{"tokens":12}}', name)
        self._sunk = _answer(b"{}", name)
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._left = 0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    # -- httptools --------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """The request's target."""
        self._url = url

    def on_message_complete(self) -> None:
        """The request is whole: answer it."""
        path, _, query = self._url.partition(b"?")
        if path == b"/run":
            self._transport.write(self._run)
        elif path == b"/work":
            delay_s = int(parse_qs(query)[b"ms"][0]) / 1000
            asyncio.get_running_loop().call_later(delay_s, self._transport.write, self._run)
        elif path == b"/sink":
            self._transport.write(self._sunk)
        elif path == b"/source":
            self._left = int(parse_qs(query)[b"bytes"][0])
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n" % self._left
            )
            self._pump()
        elif path == b"/sse":
            fields = parse_qs(query)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._event(int(fields[b"interval_ms"][0]) / 1000, int(fields[b"n"][0]), first=True)
        else:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _pump(self) -> None:
        while self._left and not self._paused:
            piece = _CHUNK[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)

    def _event(self, interval_s: float, left: int, *, first: bool = False) -> None:
        if self._transport.is_closing():
            return
        event = b'data: {"sent_ns":%d}\n\n' % time.monotonic_ns()
        end = b"" if left > 1 else b"0\r\n\r\n"
        self._transport.write(b"%x\r\n%b\r\n%b" % (len(event), event, end))
        if left > 1:
            # Streams opened together must not send together for ever: the second event finds its own phase.
            delay = interval_s * random.random() if first else interval_s
            asyncio.get_running_loop().call_later(delay, self._event, interval_s, left - 1)


async def _serve(certs: Path) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certs / "ca.pem"))
    context.load_cert_chain(certs / "executor.pem", certs / "executor-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    async def listen(factory: Callable[[], asyncio.Protocol], secure: ssl.SSLContext | None = None) -> int:
        host = "127.0.0.1" if secure else "0.0.0.0"  # any of 127.0.0.0/8, for many agents
        server = await loop.create_server(factory, host, 0, backlog=1024, ssl=secure)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def agent(name: str) -> Callable[[], asyncio.Protocol]:
        return lambda: Agent(name)

    names = [f"executor-{number}" for number in range(1, AGENTS + 1)]
    ports = {
        "agents": [await listen(agent(name)) for name in names],
        "tls_agents": [await listen(agent(name), context) for name in names],
        "otlp": await listen(OtlpSink),
    }
    print(json.dumps(ports), flush=True)
    gc.freeze()
    await loop.create_future()


if __name__ == "__main__":
    raise_file_limit()
    uvloop.run(_serve(Path(sys.argv[1])))
