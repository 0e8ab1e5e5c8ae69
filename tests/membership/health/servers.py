"""Agents on real sockets that say how they are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.waiting import free_port

SERVING, NOT_SERVING = 1, 2


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Let others have their turn until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


class Http1Agent:
    """Answers every request over HTTP/1.1 with `answer`; nothing when that is empty."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        self.asked: list[bytes] = []
        self.under_way = 0
        self.most_at_once = 0
        self.slowness_s = 0.0
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            await asyncio.sleep(self.slowness_s)
            writer.write(self.answer)
            if not self.answer:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            return  # nothing was asked: a check by TCP
        finally:
            self.under_way -= 1
            writer.close()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Http1Agent]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


@asynccontextmanager
async def http2_agent(status: int) -> AsyncIterator[int]:
    """An agent that speaks h2c and answers every ``GET /healthz`` with `status`; gives its port."""

    async def healthz(_: Request) -> PlainTextResponse:
        return PlainTextResponse("x" * 100_000, status)

    config = Config()
    port = free_port()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = 0.1
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(Starlette(routes=[Route("/healthz", healthz)]), config, shutdown_trigger=stop.wait))
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0.01)
        writer.close()
        yield port
        stop.set()


class GrpcAgent:
    """A gRPC server with the health service, whose `status` can be set."""

    def __init__(self) -> None:
        self.status = SERVING
        self.served = "grpc.health.v1.Health"
        self.port = 0

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        assert request == b""
        return bytes((8, self.status)) if self.status else b""

    @contextmanager
    def running(self, certs: Path | None = None) -> Iterator[GrpcAgent]:
        """With `certs`, over TLS as the executor, for callers with a certificate."""
        server = grpc.server(futures.ThreadPoolExecutor(2))
        handlers = {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.served, handlers),))
        if certs is None:
            self.port = server.add_insecure_port("127.0.0.1:0")
        else:
            pair = (certs / "executor-key.pem").read_bytes(), (certs / "executor.pem").read_bytes()
            roots = (certs / "ca.pem").read_bytes()
            self.port = server.add_secure_port(
                "127.0.0.1:0", grpc.ssl_server_credentials([pair], roots, require_client_auth=True)
            )
        server.start()
        try:
            yield self
        finally:
            server.stop(None)
