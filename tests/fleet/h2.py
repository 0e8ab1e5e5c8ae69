"""A caller over HTTP/2 that goes to another connection when the one it has says that it will take no more."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any

from gateway.messages import RequestHead
from gateway.proxy.codec import (
    ConnectionFailed,
    DataReceived,
    Ended,
    GoAwayReceived,
    Http2Client,
    ResponseReceived,
    StreamReset,
)


@dataclass
class Answer:
    """What came of a request."""

    status: int = 0
    body: bytes = b""
    problem: str = ""
    """Why it did not come to an end; empty when it did."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, problem: str = "") -> None:
        self.problem = problem
        self.over.set()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.codec = Http2Client(max_streams=1000)
        self.answers: dict[int, Answer] = {}
        self.goaway = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.flush()

    def flush(self) -> None:
        data = self.codec.output()
        if data and not self.transport.is_closing():
            self.transport.write(data)
        if self.goaway and not self.answers:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        for event in self.codec.receive(data):
            if isinstance(event, GoAwayReceived):
                self.goaway = True
            elif isinstance(event, ConnectionFailed):
                self.connection_lost(None)
            elif isinstance(event, StreamReset):
                self._end(event.stream, "refused" if event.untouched else "reset")
            elif event.stream in self.answers:
                answer = self.answers[event.stream]
                if isinstance(event, ResponseReceived):
                    answer.status = event.head.status
                elif isinstance(event, DataReceived):
                    answer.body += event.data
                    self.codec.consumed(event.stream, event.size)
                if isinstance(event, Ended) or (isinstance(event, ResponseReceived) and event.ended):
                    self._end(event.stream, "")
        self.flush()

    def _end(self, stream: int, problem: str) -> None:
        answer = self.answers.pop(stream, None)
        if answer is not None:
            answer.end(problem)
            self.codec.release(stream)

    def connection_lost(self, exc: Exception | None) -> None:
        self.goaway = True
        answers, self.answers = self.answers, {}
        for answer in answers.values():
            answer.end(f"the connection was lost: {exc!r}")


class Caller:
    """Sends requests, each once."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self._current: _Connection | None = None
        self._opening = asyncio.Lock()
        self.connections = 0

    async def _connection(self) -> _Connection:
        async with self._opening:
            if self._current is None or self._current.goaway:
                self.connections += 1
                loop = asyncio.get_running_loop()
                _, self._current = await loop.create_connection(
                    _Connection, "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
                )
            return self._current

    async def get(self, path: str, fields: dict[str, str]) -> Answer:
        """Send a GET and wait for all of its answer."""
        answer = Answer()
        try:
            connection = await self._connection()
        except OSError as error:
            answer.end(f"no connection: {error!r}")
            return answer
        encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
        head = RequestHead(b"GET", b"https", b"mesh", path.encode(), encoded)
        connection.answers[connection.codec.send_request(head, ended=True)] = answer
        connection.flush()
        await answer.over.wait()
        return answer

    def close(self) -> None:
        if self._current is not None:
            self._current.transport.close()
