"""A refusal leaves its connection as it was: the admin port's next request goes over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.admin import whole
from gateway.admin.server import AdminServer
from gateway.proxy.sockets import listening


async def refuse(request: Request) -> Response:
    return PlainTextResponse("no", 403)


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """To an admin port that refuses everything."""
    (listener,) = listening("127.0.0.1", 0)
    app = Starlette(routes=[Route("/", refuse, methods=["GET", "POST"])])
    stop = asyncio.Event()
    serving = asyncio.create_task(AdminServer(app, [listener]).serve(stop))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    async with asyncio.timeout(10):
        yield reader, writer
    writer.close()
    stop.set()
    await serving


async def answer(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"no")


@pytest.mark.parametrize("late", [False, True])
async def test_a_body_that_nobody_reads_does_not_cost_the_connection(late: bool) -> None:
    async with connection() as (reader, writer):
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n")
            if late:  # the request has come to the application long before its body
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.1)
            writer.write(b"secret")
            assert b" 403 " in await answer(reader)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b" 403 " in await answer(reader)


async def test_a_body_that_does_not_come_is_waited_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "WAIT_S", 0.05)
    async with connection() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n")
        assert b" 403 " in await answer(reader)


async def test_no_more_is_read_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "MAX_BYTES", 10)
    async with connection() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + bytes(20))
        assert b" 403 " in await answer(reader)
