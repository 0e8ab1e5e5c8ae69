"""An agent that registers itself: ``python -m tests.fleet.registered SETTINGS``.

The settings, in JSON: ``name``, ``port``, ``record``, ``gateway`` (a URL), ``tls`` (``certificate``, ``key``, ``ca``).

``/events`` is a stream of an event each 100 ms, until `STEPS` packets of its conversation have come to ``/step``: then
the work is done, and the stream ends.  It registers when it reads ``join``; on SIGTERM it retires, and ends when
nothing is under way any more.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.agent import Registrar
from tests.fleet.plain import Record

STEPS = 3
EVENT_S = 0.1
MAX_EVENTS = 200
QUIET_S = 0.5
"""Without anything under way for so long, there is nothing left to wait for."""


class Agent:
    """What it knows."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.steps: Counter[str] = Counter()
        """By conversation."""
        self.under_way = 0
        self._record = Record(settings["record"])
        self._app = Starlette(
            routes=[
                Route("/events", self.events),
                Route("/step", self.step, methods=["POST"]),
            ]
        )

    async def step(self, request: Request) -> Response:
        self.steps[request.headers["flight-conversation"]] += 1
        return PlainTextResponse("done")

    async def events(self, request: Request) -> Response:
        conversation = request.headers["flight-conversation"]

        async def told() -> AsyncIterator[bytes]:
            for number in range(MAX_EVENTS):
                yield b"data: %d\n\n" % number
                if self.steps[conversation] >= STEPS:
                    del self.steps[conversation]
                    yield b"data: done\n\n"
                    return
                await asyncio.sleep(EVENT_S)

        return StreamingResponse(told(), media_type="text/event-stream")

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        if scope["type"] != "http":
            return
        self._record.note(scope["method"], dict(scope["headers"])[b"flight-id"].decode())
        self.under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.under_way -= 1

    async def quiet(self) -> None:
        """Wait until nothing has been under way for `QUIET_S`."""
        since = time.monotonic()
        while time.monotonic() - since < QUIET_S:
            await asyncio.sleep(0.02)
            if self.under_way:
                since = time.monotonic()


async def be_a_member(agent: Agent, stopped: asyncio.Event) -> None:
    """Register once that is asked for; retire when it is time, and be gone as soon as nothing is under way."""
    settings = agent.settings
    tls = settings["tls"]
    context = ssl.create_default_context(cafile=tls["ca"])
    context.load_cert_chain(tls["certificate"], tls["key"])
    async with httpx.AsyncClient(base_url=settings["gateway"], verify=context, trust_env=False) as gateway:
        registrar = Registrar(
            gateway, settings["name"], f"127.0.0.1:{settings['port']}", capabilities=["code.execute"], drain_s=20.0
        )
        await asyncio.to_thread(sys.stdin.readline)
        async with asyncio.TaskGroup() as tasks, registrar:
            say("joined")
            await stopped.wait()
            tasks.create_task(go_early(agent, gateway))
    await agent.quiet()


async def go_early(agent: Agent, gateway: httpx.AsyncClient) -> None:
    """Nobody need wait until the drain is over when the work is done."""
    await agent.quiet()
    await gateway.delete(f"/members/{agent.settings['name']}?drain=0s")


async def main() -> None:
    settings = json.loads(sys.argv[1])
    agent = Agent(settings)
    config = Config()
    config.bind = [f"127.0.0.1:{settings['port']}"]
    config.keep_alive_timeout = 60
    config.accesslog = None
    config.loglevel = "WARNING"
    tls = settings["tls"]
    config.certfile, config.keyfile, config.ca_certs = tls["certificate"], tls["key"], tls["ca"]
    config.verify_mode = ssl.CERT_REQUIRED
    stopped, over = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(agent, config, shutdown_trigger=over.wait))  # type: ignore[arg-type]
        await listening(settings["port"])
        say("serving")
        await be_a_member(agent, stopped)
        over.set()


def say(word: str) -> None:
    """Tell whoever started this."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def listening(port: int) -> None:
    """Wait until somebody listens."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


if __name__ == "__main__":
    asyncio.run(main())
