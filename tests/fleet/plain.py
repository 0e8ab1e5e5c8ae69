"""An agent: ``python -m tests.fleet.plain SETTINGS``, in JSON: ``port``, ``protocol``, ``record``, ``delay_s``.

It notes every request as soon as its head is read, and answers each after a moment, in one write: when it is killed,
the answer has been given whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import h2.config
import h2.connection
import h2.events
import httptools


class Record:
    """What has reached the agent; it is in the file before anything else happens."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, method: str, packet: str) -> None:
        os.write(self._file, f"{time.time():.6f} {method} {packet or '-'}\n".encode())


class Http1(asyncio.Protocol):
    """A connection over HTTP/1.1."""

    def __init__(self, record: Record, delay_s: float) -> None:
        self._record = record
        self._delay_s = delay_s
        self._parser = httptools.HttpRequestParser(self)
        self._packet = ""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"flight-id":
            self._packet = value.decode()

    def on_headers_complete(self) -> None:
        self._record.note(self._parser.get_method().decode(), self._packet)

    def on_message_complete(self) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._answer)

    def _answer(self) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")


class Http2(asyncio.Protocol):
    """A connection over HTTP/2 in the clear."""

    def __init__(self, record: Record, delay_s: float) -> None:
        self._record = record
        self._delay_s = delay_s
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                head = dict(event.headers)
                self._record.note(head[":method"], head.get("flight-id", ""))
            elif isinstance(event, h2.events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                asyncio.get_running_loop().call_later(self._delay_s, self._answer, event.stream_id)
        self._flush()

    def _answer(self, stream: int) -> None:
        self._h2.send_headers(stream, [(":status", "200"), ("content-length", "4")])
        self._h2.send_data(stream, b"done", end_stream=True)
        self._flush()

    def _flush(self) -> None:
        self._transport.write(self._h2.data_to_send())


async def main() -> None:
    settings = json.loads(sys.argv[1])
    record = Record(settings["record"])
    kind = Http2 if settings["protocol"] == "h2c" else Http1
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: kind(record, settings["delay_s"]), "127.0.0.1", settings["port"])
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
