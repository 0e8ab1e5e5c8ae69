"""An agent of the soak: as `tests.fleet.plain` over HTTP/1.1, and ``/events`` is a stream that ends with its reader."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httptools

_DONE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = b"data: tick\n\n"
EVENT_S = 0.2


class Agent(asyncio.Protocol):
    """A connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_message_complete(self) -> None:
        if self._url == b"/events":
            self._transport.write(_STREAM)
            self._tick()
        else:
            self._transport.write(_DONE)

    def _tick(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
            asyncio.get_running_loop().call_later(EVENT_S, self._tick)


async def main() -> None:
    settings = json.loads(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(Agent, "127.0.0.1", settings["port"])
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
