"""A pool gives every exchange that waits an answer, however its agent ends."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from random import getrandbits

import pytest

from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.proxy.lifetimes import Lifetimes
from gateway.proxy.turn import Turn
from gateway.proxy.upstream import Pool, UpstreamConnection, UpstreamLimits
from gateway.refusal import Refusal
from gateway.routing import Agent, Protocol

LISTEN = """
import socket, time
agent = socket.create_server(("127.0.0.1", 0), backlog=1000)
print(agent.getsockname()[1], flush=True)
time.sleep(60)
"""
"""An agent that accepts nobody: connections to it are made by its kernel, and die with it."""


class Asked:
    """An exchange that wants one answer."""

    caller = ""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    def on_upstream(self, connection: UpstreamConnection) -> None:
        connection.open(self, RequestHead(b"GET", b"http", b"agent", b"/", []), ended=True)

    def on_connect_failed(self, why: str) -> None:
        self.told.set()

    def on_turned_away(self, why: str) -> None:
        raise AssertionError

    def on_agent_gone(self) -> None:
        self.told.set()

    def on_upstream_lost(self, *, untouched: bool, malformed: str) -> None:
        self.told.set()

    def revoke(self, refusal: Refusal) -> None:
        raise AssertionError

    def upstream_writable(self) -> None:
        raise AssertionError

    def on_response(self, head: ResponseHead, *, ended: bool) -> None:
        raise AssertionError

    def on_response_data(self, data: bytes, size: int) -> None:
        raise AssertionError

    def on_response_end(self, trailers: Fields | None) -> None:
        raise AssertionError


@pytest.mark.parametrize("protocol", [Protocol.HTTP1, Protocol.H2C])
@pytest.mark.parametrize("max_connections", [4, 256])
async def test_nobody_waits_for_an_agent_that_died(protocol: Protocol, max_connections: int) -> None:
    for death in range(8):
        process = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", LISTEN, stdout=PIPE)
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        agent = Agent("a", "127.0.0.1", port, frozenset({"x"}), protocol=protocol)
        pool = Pool(
            agent,
            Turn(asyncio.get_running_loop()),
            UpstreamLimits(max_connections=max_connections),
            lambda _: pytest.fail("no TLS here"),
            lambda: pytest.fail("a defect"),
            Lifetimes(getrandbits),
        )
        asked = [Asked() for _ in range(40)]
        for number, each in enumerate(asked):
            if number == 2 * death:
                process.kill()
            assert not pool.acquire(each)
            await asyncio.sleep(0.0003)
        async with asyncio.timeout(5):
            for each in asked:
                await each.told.wait()
        await pool.close()
        await process.wait()
