"""``/debug``: what the gateway is doing when nobody knows: its tasks, and a profile of its loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.admin.operators import operators_only, refused
from gateway.admin.profile import MAX_HZ, MAX_SECONDS, Samples, collapsed, sample, speedscope
from gateway.admin.stream import json
from gateway.admin.tasks import Tasks, standing

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

DEFAULT_SECONDS: Final = 5.0
DEFAULT_HZ: Final = 100.0
FORMATS: Final = ("collapsed", "speedscope")
GONE: Final = "whoever asked has gone"

Value = TypeVar("Value")


def number_of(request: Request, name: str, default: float, most: float) -> float:
    """A number of the query, above 0.

    Raises:
        ValueError: it is none, or above `most`.

    """
    text = request.query_params.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise ValueError(f"{name} {text[:20]!r}: expected a number above 0, {most:g} at most")
    return value


def asked_for(request: Request) -> tuple[float, float, str]:
    """Seconds, samples a second and format of the profile that is asked for.

    Raises:
        ValueError: one of them is not possible.

    """
    seconds = number_of(request, "seconds", DEFAULT_SECONDS, MAX_SECONDS)
    hz = number_of(request, "hz", DEFAULT_HZ, MAX_HZ)
    form = request.query_params.get("format", FORMATS[0])
    if form not in FORMATS:
        raise ValueError(f"format {form[:20]!r}: expected {' or '.join(FORMATS)}")
    return seconds, hz, form


def debug_routes(gateway: Gateway) -> list[Route]:
    """The endpoints of `gateway`."""
    profiling = threading.Lock()

    async def tasks(_: Request) -> Response:
        lag_s = gateway.plane.monitor.lag_s if gateway.plane is not None else 0.0
        count, found = standing(asyncio.all_tasks())
        return json(Tasks(round(lag_s * 1000, 3), count, found))

    async def profile(request: Request) -> Response:
        try:
            seconds, hz, form = asked_for(request)
        except ValueError as error:
            return refused(400, str(error))
        if not profiling.acquire(blocking=False):
            return refused(409, "a profile is being taken already: one at a time")
        try:
            samples = await unless_gone(request, _sampled(seconds, hz))
        finally:
            profiling.release()
        return shown(samples, hz, form) if samples is not None else refused(499, GONE)

    return [
        Route("/debug/tasks", operators_only(tasks)),
        Route("/debug/profile", operators_only(profile)),
    ]


def shown(samples: Samples, hz: float, form: str) -> Response:
    """`samples` in the format `form`."""
    if form == "speedscope":
        return JSONResponse(speedscope(samples, hz))
    return PlainTextResponse(collapsed(samples))


async def unless_gone(request: Request, work: Coroutine[Any, Any, Value]) -> Value | None:
    """What `work` gives; ``None``, and it is cancelled, when whoever asks goes away before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _sampled(seconds: float, hz: float) -> Samples:
    """Sample this loop's thread, until cancelled."""
    loop, stop = asyncio.get_running_loop(), threading.Event()
    taken: asyncio.Future[Samples] = loop.create_future()

    def put(samples: Samples) -> None:
        if not taken.done():
            taken.set_result(samples)

    def run(thread: int) -> None:
        samples = sample(thread, seconds, hz, stop)
        if not loop.is_closed():
            loop.call_soon_threadsafe(put, samples)

    # Not in the executor, whose threads are waited for when the process ends.
    threading.Thread(target=run, args=(threading.get_ident(),), name="profile", daemon=True).start()
    try:
        return await taken
    finally:
        stop.set()
