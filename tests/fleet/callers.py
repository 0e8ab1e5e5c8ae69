"""Callers over HTTP/2 and HTTP/1.1 that tell what became of every packet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

from tests.conftest import CAPABILITY, RunningGateway, client_context

_BODIES = {"GET": b"", "PUT": b"x" * 1000, "POST": b"y" * 1000}
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)


@dataclass
class Call:
    """A packet, and what became of it."""

    id: str
    method: str
    conversation: str
    began: float
    """Seconds since the epoch; so is `ended`."""
    ended: float = 0.0
    status: int = 0
    """0 when there was no answer."""
    agent: str = ""
    attempts: int = 1
    problem: str = ""


@dataclass
class Callers:
    """Sends packets; the one after goes over the other version of HTTP."""

    clients: list[httpx.AsyncClient]
    admin: httpx.AsyncClient
    methods: list[str]
    calls: list[Call] = field(default_factory=list)
    late_s: float = 0.0
    """How late the machine has made a packet of `lone`, at most."""
    _numbers: count[int] = field(default_factory=count)

    async def call(self, conversation: str = "", path: str = "/run") -> Call:
        """Send one packet."""
        number = next(self._numbers)
        method = self.methods[number // len(self.clients) % len(self.methods)]
        call = Call(f"p-{number}", method, conversation, time.time())
        self.calls.append(call)
        headers = {**CAPABILITY, "flight-id": f'"{call.id}"'}
        if conversation:
            headers["flight-conversation"] = f'"{conversation}"'
        client = self.clients[number % len(self.clients)]
        try:
            answer = await client.request(call.method, path, headers=headers, content=_BODIES[call.method])
        except httpx.HTTPError as error:
            call.problem = repr(error)
        else:
            call.status = answer.status_code
            call.agent = answer.headers.get("flight-agent", "").strip('"')
            call.attempts = int(answer.headers.get("flight-attempts", "1"))
            if answer.status_code != 200:
                call.problem = answer.text
        call.ended = time.time()
        return call

    async def lone(self, per_s: float, stop: asyncio.Event) -> None:
        """Send packets of no conversation, so many a second however long they take."""
        async with asyncio.TaskGroup() as tasks:
            due = time.monotonic()
            while not stop.is_set():
                due += 1 / per_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.late_s = max(self.late_s, time.monotonic() - due)
                tasks.create_task(self.call())

    async def converse(self, conversation: str, pause_s: float, stop: asyncio.Event) -> None:
        """Send packets of `conversation`, one after the other."""
        while not stop.is_set():
            await self.call(conversation)
            await asyncio.sleep(pause_s)

    async def members(self) -> dict[str, dict[str, Any]]:
        """The agents as the gateway has them, by name."""
        return {agent["name"]: agent for agent in (await self.admin.get("/snapshot")).json()["agents"]}

    async def until(self, condition: Callable[[dict[str, dict[str, Any]]], bool], timeout_s: float = 10) -> None:
        """Wait until `condition` holds of the `members`."""
        async with asyncio.timeout(timeout_s):
            while True:
                if condition(await self.members()):
                    return
                await asyncio.sleep(0.02)

    def of(self, conversation: str) -> list[Call]:
        """The packets of a conversation that were answered by an agent, in order."""
        return [call for call in self.calls if call.conversation == conversation and call.status == 200]


@asynccontextmanager
async def callers(gateway: RunningGateway, methods: list[str]) -> AsyncIterator[Callers]:
    """Callers of `gateway` who use `methods` in turn."""
    options: dict[str, Any] = {"base_url": gateway.url, "timeout": 15, "trust_env": False, "limits": _LIMITS}
    async with (
        httpx.AsyncClient(http2=True, verify=client_context(gateway.certs), **options) as h2,
        httpx.AsyncClient(verify=client_context(gateway.certs), **options) as h1,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.admin_port}", verify=False, trust_env=False) as admin,
    ):
        yield Callers([h2, h1], admin, methods)
