"""``/explain``: what became of a packet, of late or recorded, or would become of one, and why."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.decision import Snapshot
from gateway.documents import DocumentError
from gateway.explain import Explanation, explain, hypothesis
from gateway.recorded import Recorded
from gateway.recorder import Reader
from gateway.recorder.compose import recorded as decision_of
from gateway.recording import again
from gateway.telemetry.recent import MAX_RECENT

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

USAGE = (
    "ask for a packet that was: ?id=FLIGHT-ID, or for one that might be: "
    "?from=SPIFFE-ID&header=name:value, with more headers, method, path, authority or signer"
)
MAX_ASKED = 4
"""Packets that are looked for in the flight recorder at a time, one after the other; more are told to wait."""
_PARTS = frozenset({"method", "path", "authority", "signer"})


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer."""

    recorded: Recorded | None = None
    """The decision on a packet that there was, as it was taken."""
    explanation: Explanation | None = None
    """Under what is in force now; ``None`` for a packet that was refused before policy was asked."""
    revision: str = ""
    """What is in force now, where that is not what the packet was decided under."""


def explain_endpoint(gateway: Gateway) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of `gateway`."""
    readings = asyncio.Lock()
    asked = 0

    async def recorded_as(flight_id: str) -> Recorded | Response | None:
        nonlocal asked
        reader = gateway.recorded
        if reader is None:
            return None
        if asked >= MAX_ASKED:
            return PlainTextResponse("too many packets are being looked for\n", 503, headers={"retry-after": "1"})
        asked += 1
        try:
            async with readings:
                return await asyncio.to_thread(_from_recorder, reader, flight_id)
        except (DocumentError, OSError) as error:
            return PlainTextResponse(f"the flight recorder cannot be read: {error}\n", 503)
        finally:
            asked -= 1

    async def endpoint(request: Request) -> Response:
        query = request.query_params
        if set(query) == {"id"}:
            recorded = gateway.decision_on(query["id"]) or await recorded_as(query["id"])
            if isinstance(recorded, Response):
                return recorded
            if recorded is None:
                also = ", nor in the flight recorder" if gateway.recorded is not None else ""
                text = f"no packet with this id among the last {MAX_RECENT:,}{also}\n"
                return PlainTextResponse(text, status_code=404)
            told = _known(recorded, gateway.snapshot)
        else:
            try:
                told = _hypothetical(query, gateway.snapshot)
            except ValueError as error:
                return PlainTextResponse(f"{error}\n", status_code=400)
        return Response(msgspec.json.encode(told), media_type="application/json")

    return endpoint


def _from_recorder(reader: Reader, flight_id: str) -> Recorded | None:
    """The latest decision on the packet with this id; for a thread.

    Raises:
        DocumentError: the recorder's files are not as it wrote them.
        OSError: they cannot be read.

    """
    if not flight_id:
        return None
    latest = deque(reader.records(flight_id=flight_id), maxlen=1)
    return decision_of(latest[0]) if latest else None


def _known(recorded: Recorded, snapshot: Snapshot) -> Told:
    revision = snapshot.revision if snapshot.revision != recorded.revision else ""
    if not recorded.judged:
        return Told(recorded, revision=revision)
    head, principal, evidence, held, bound = again(recorded)
    now = time.time()
    told = explain(head, principal, snapshot, now, random.getrandbits, assume=evidence, held=held, destination=bound)
    return Told(recorded, told, revision)


def _hypothetical(query: QueryParams, snapshot: Snapshot) -> Told:
    unknown = sorted(set(query) - _PARTS - {"from", "header"})
    if unknown or "from" not in query:
        raise ValueError(f"{f'unknown: {unknown[0]!r}' if unknown else 'from is missing'}; {USAGE}")
    parts = {name: query[name] for name in _PARTS & set(query)}
    head, principal, assume = hypothesis(query["from"], query.getlist("header"), **parts)
    return Told(None, explain(head, principal, snapshot, time.time(), random.getrandbits, assume=assume))
