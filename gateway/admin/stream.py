"""``/live``: handoffs as they end, and the state each second, as server-sent events; ``/handoffs``: the last ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import islice

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.admin.filters import Filter
from gateway.admin.live import MAX_READERS, Live
from gateway.admin.operators import refused
from gateway.handoff import Handoff
from gateway.telemetry.recent import MAX_RECENT, Recent

DEFAULT_LIMIT = 100
EVENT_STREAM = "text/event-stream"
UNCACHED = {"cache-control": "no-store", "x-accel-buffering": "no"}

NO_STREAM = Response(media_type=EVENT_STREAM, headers=UNCACHED)
"""To HEAD, which wants no events."""


class Handoffs(msgspec.Struct, frozen=True):
    """The answer of ``/handoffs``."""

    handoffs: list[Handoff]
    """The newest first."""


class Stream(StreamingResponse):
    """A stream of events; whatever ends it, `left` is called."""

    def __init__(self, events: AsyncIterator[bytes], left: Callable[[], None]) -> None:
        super().__init__(events, media_type=EVENT_STREAM, headers=UNCACHED)
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until either side ends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


def limit_of(request: Request) -> int:
    """The query's ``limit``.

    Raises:
        ValueError: it is no number from 1 to `MAX_RECENT`.

    """
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_RECENT):
        raise ValueError(f"limit {text[:20]!r}: expected a number from 1 to {MAX_RECENT}")
    return int(text)


def live_routes(live: Live, recent: Recent) -> list[Route]:
    """The endpoints over `live` and `recent`."""

    async def stream(request: Request) -> Response:
        try:
            wanted = Filter.of(request.query_params)
        except ValueError as error:
            return refused(400, str(error))
        if request.method == "HEAD":
            return NO_STREAM
        reader = live.join(wanted)
        if reader is None:
            return refused(503, f"{MAX_READERS} look on already", retry_after_s=5)
        return Stream(reader.events(), lambda: live.leave(reader))

    async def handoffs(request: Request) -> Response:
        try:
            wanted, limit = Filter.of(request.query_params), limit_of(request)
        except ValueError as error:
            return refused(400, str(error))
        # In a thread: it may take all of them to find so many.
        found = await asyncio.to_thread(lambda: list(islice(filter(wanted.wants, recent.handoffs()), limit)))
        return json(Handoffs(found))

    return [Route("/live", stream), Route("/handoffs", handoffs)]


def json(value: object) -> Response:
    """`value`, as msgspec writes it."""
    return Response(msgspec.json.encode(value), media_type="application/json")
