"""A new process takes over the addresses of an old one: nobody who connects meanwhile is refused or reset."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

from tests.conftest import RawAgent, RunningGateway, StartGateway, member
from tests.redis_server import RedisServer
from tests.waiting import eventually

REQUEST = b"GET /run HTTP/1.1\r\nhost: mesh\r\nflight-capability: code.execute\r\n\r\n"
CONNECTIONS_PER_S = 100


def ok(agent: RawAgent, connection: socket.socket) -> None:
    while True:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


class Newcomers:
    """New connections at a rate, each for one request."""

    def __init__(self, port: int) -> None:
        self.over = asyncio.Event()
        self.served = 0
        self.problems: list[str] = []
        self._port = port

    async def _one(self) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(REQUEST)
            answer = await reader.readuntil(b"\r\n\r\nok")
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            self.served += 1
            writer.close()
        except (OSError, asyncio.IncompleteReadError, AssertionError) as error:
            self.problems.append(repr(error))

    async def come(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while not self.over.is_set():
                tasks.create_task(self._one())
                await asyncio.sleep(1 / CONNECTIONS_PER_S)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
async def test_nobody_is_refused_while_a_new_process_takes_over(
    raw_agent, start_gateway: StartGateway, redis: RedisServer, workers: int
) -> None:
    spec = {"workers": workers, "redis": {"url": redis.url}, "reusePort": True}
    gateway = await asyncio.to_thread(start_gateway, [member(raw_agent(ok).port)], **spec)
    old = gateway.process
    newcomers = Newcomers(gateway.plain_port)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(newcomers.come())
        gateway.spawn()
        ready = "is up" if workers > 1 else "ready: "
        await asyncio.to_thread(eventually, lambda: gateway.log().count(ready) == 2 * workers, 40)
        old.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(old.wait, 30) == 0
        served = newcomers.served
        await asyncio.to_thread(eventually, lambda: newcomers.served > served + CONNECTIONS_PER_S / 2)
        newcomers.over.set()
    assert newcomers.problems == []
    assert await asyncio.to_thread(answering, gateway) == gateway.process.pid


def answering(gateway: RunningGateway) -> int:
    """The process that answers on the admin port."""
    return int(gateway.admin("/status").json()["pid"])


def test_without_reuse_port_a_second_gateway_cannot_start(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(ok).port)])
    first = gateway.process
    gateway.spawn()
    assert gateway.process.wait(40) == 1
    assert "cannot start: " in gateway.log()
    gateway.process = first
    os.kill(first.pid, 0)
