"""``/explain``: what became of a recent packet, or would become of one, and why."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.decision import Snapshot
from gateway.explain import Explanation, explain, hypothesis
from gateway.recording import Recorded, again
from gateway.telemetry.recent import MAX_RECENT

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

USAGE = (
    "ask for a packet among the last: ?id=FLIGHT-ID, or for one that might be: "
    "?from=SPIFFE-ID&header=name:value, with more headers, method, path, authority or signer"
)
_PARTS = frozenset({"method", "path", "authority", "signer"})


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer."""

    recorded: Recorded | None = None
    """The decision on a recent packet, as it was taken."""
    explanation: Explanation | None = None
    """Under what is in force now; ``None`` for a recent packet that was refused before policy was asked."""


def explain_endpoint(gateway: Gateway) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of `gateway`."""

    async def endpoint(request: Request) -> Response:
        query = request.query_params
        if set(query) == {"id"}:
            recorded = gateway.recent.find(query["id"])
            if recorded is None:
                return PlainTextResponse(f"no packet with this id among the last {MAX_RECENT:,}\n", status_code=404)
            told = _recent(recorded, gateway.snapshot)
        else:
            try:
                told = _hypothetical(query, gateway.snapshot)
            except ValueError as error:
                return PlainTextResponse(f"{error}\n", status_code=400)
        return Response(msgspec.json.encode(told), media_type="application/json")

    return endpoint


def _recent(recorded: Recorded, snapshot: Snapshot) -> Told:
    if not recorded.judged:
        return Told(recorded)
    head, principal, evidence, held, bound = again(recorded)
    now = time.time()
    told = explain(head, principal, snapshot, now, random.getrandbits, assume=evidence, held=held, destination=bound)
    return Told(recorded, told)


def _hypothetical(query: QueryParams, snapshot: Snapshot) -> Told:
    unknown = sorted(set(query) - _PARTS - {"from", "header"})
    if unknown or "from" not in query:
        raise ValueError(f"{f'unknown: {unknown[0]!r}' if unknown else 'from is missing'}; {USAGE}")
    parts = {name: query[name] for name in _PARTS & set(query)}
    head, principal, assume = hypothesis(query["from"], query.getlist("header"), **parts)
    return Told(None, explain(head, principal, snapshot, time.time(), random.getrandbits, assume=assume))
