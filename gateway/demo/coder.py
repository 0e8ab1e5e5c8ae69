"""Writes a program, has it run, mends it.  Capability: ``code.write``; answers over SSE, HTTP/1.1 mTLS.

In the place of a language model it has two drafts for each goal that it knows, the first with a mistake, and
streams them word by word as a model would.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.agent import Arrival
from gateway.demo.peer import Settings, create_app, in_words, raise_for_problem, serve_http1

RUN_BUDGET = {"tokens": 300, "cost": 3}
"""What a run of a draft may spend, with all that comes of it, out of what the coder was given."""

TOKEN_INTERVAL_S = 0.02
"""How fast the stand-in for a model writes."""

_PRIMES = '''\
def primes_below(limit):
    """The primes below `limit`, by trial division."""
    return [n for n in range(2, limit) if all(n % d for d in range(2, {bound}))]

answer = sum(primes_below(100))
'''

_FIBONACCI = '''\
def fibonacci(n):
    """The n-th Fibonacci number; the first two are 1."""
    a, b = {start}
    for _ in range(n - 1):
        a, b = b, a + b
    return a

answer = fibonacci(50)
'''

DRAFTS = {
    "primes": (_PRIMES.format(bound="int(n**0.5)"), _PRIMES.format(bound="int(n**0.5) + 1")),
    "fibonacci": (_FIBONACCI.format(start="0, 1"), _FIBONACCI.format(start="1, 1")),
}
"""By a word of the goal: the draft that comes to mind first, and the one after its test has failed."""


def drafts_for(goal: str) -> tuple[str, ...] | None:
    """The drafts for `goal`, or ``None`` when it is beyond this coder."""
    return next((drafts for word, drafts in DRAFTS.items() if word in goal.lower()), None)


async def work(
    drafts: tuple[str, ...], test: str, packet: Arrival, gateway: httpx.AsyncClient
) -> AsyncIterator[dict[str, Any]]:
    """Write draft after draft until one passes `test`.

    ``{"token"}``s and a ``{"run"}`` for each, or ``{"failed"}``.  What it has spent so far goes with it in the words of
    OpenAI's API, which the gateway reads along.
    """
    onward, written = packet.onward(gateway), 0
    for draft in drafts:
        for token in re.findall(r"\s*\S+\s*", draft):
            written += 1
            yield {"token": token}
            await asyncio.sleep(TOKEN_INTERVAL_S)
        # The same conversation: the same replica runs the next draft, whatever it has kept warm for us.
        try:
            response = await onward.post(
                "code.execute, lang.python",
                "/run",
                budget=RUN_BUDGET,
                json={"code": f"{draft}\n{test}\nprint(answer)\n", "review": True},
            )
            await raise_for_problem(response)
        except httpx.HTTPError as error:  # the stream has begun: a status is no longer possible
            yield {"failed": in_words(error)}
            return
        run = response.json()
        run |= {"code": draft, "agent": response.headers["flight-agent"].strip('"')}
        yield {"run": run, "usage": {"total_tokens": written}}
        if run["ok"]:
            return


async def write(request: Request) -> Response:
    """``POST /write`` with ``{"goal", "test"}``: a stream of events, each with one JSON object as its data."""
    asked = await request.json()
    drafts = drafts_for(asked["goal"])
    if drafts is None:
        known = " or ".join(DRAFTS)
        return JSONResponse({"detail": f"this coder only knows about {known}"}, status_code=422)
    events = work(drafts, asked["test"], Arrival.received(request.headers), request.state.gateway)
    return EventSourceResponse({"data": json.dumps(event)} async for event in events)


ROUTES = [Route("/write", write, methods=["POST"])]

if __name__ == "__main__":
    here = Settings.from_environment()
    serve_http1(create_app(ROUTES, here), here, tls=True)
