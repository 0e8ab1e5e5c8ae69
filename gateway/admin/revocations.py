"""``/revocations``: what is revoked; operators revoke, and undo it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.access import caller_of
from gateway.admin.operators import operators_only, refused, told
from gateway.admin.stream import json
from gateway.admin.workers import OPERATOR
from gateway.authority.revocations import NEVER, Entry, Kind, entry
from gateway.documents import Duration
from gateway.revocations import OrderError

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

_duration = TypeAdapter[float](Duration).validate_python


class Revoked(msgspec.Struct, frozen=True):
    """One thing that is revoked."""

    kind: str
    value: str
    until: str | None
    """RFC 3339; ``None``: until it is undone."""
    why: str
    who: str
    """The operator, or the file that says so."""


class Told(msgspec.Struct, frozen=True):
    """The answer of ``/revocations``."""

    revocations: list[Revoked]
    trouble: str
    """Why what is ordered may not be known everywhere, or not after a restart; empty when all is well."""


def merged(answers: Sequence[Told]) -> Told:
    """What several workers tell as one gateway: whatever any of them revokes."""
    found = {(each.kind, each.value): each for answer in answers for each in answer.revocations}
    trouble = next((answer.trouble for answer in answers if answer.trouble), "")
    return Told([found[key] for key in sorted(found)], trouble)


def revocation_routes(gateway: Gateway) -> list[Route]:
    """The endpoints of `gateway`."""
    book = gateway.revocations

    def tell() -> Told:
        entries = sorted(book.current.entries, key=lambda each: (each.kind.value, each.value))
        return Told([_shown(each) for each in entries], book.trouble)

    async def show(_: Request) -> Response:
        return json(tell())

    async def revoke(request: Request) -> Response:
        caller = caller_of(request.scope)
        who = request.headers.get(OPERATOR, caller.operator) if caller.trusted else caller.operator
        try:
            order = _order(request.query_params, who)
            await book.put(order)
        except ValueError as error:
            return refused(400, str(error))
        except OrderError as error:
            return refused(409, str(error))
        told(caller, f"revoke {order.kind.value} {order.value}", order.why or "no reason is given")
        return json(tell())

    async def undo(request: Request) -> Response:
        caller = caller_of(request.scope)
        try:
            order = _order(request.query_params, "")
            await book.take_back(order.kind, order.value)
        except ValueError as error:
            return refused(400, str(error))
        except OrderError as error:
            return refused(409, str(error))
        told(caller, f"undo the revocation of {order.kind.value} {order.value}", "done")
        return json(tell())

    return [
        Route("/revocations", show),
        Route("/revocations", operators_only(revoke), methods=["POST"]),
        Route("/revocations", operators_only(undo), methods=["DELETE"]),
    ]


def _shown(each: Entry) -> Revoked:
    until = datetime.fromtimestamp(each.until, UTC).isoformat(timespec="seconds") if each.until < NEVER else None
    return Revoked(each.kind.value, each.value, until, each.why, each.who)


def _order(query: QueryParams, who: str) -> Entry:
    """The order that a query gives.

    Raises:
        ValueError: it cannot be followed.

    """
    try:
        kind = Kind(query.get("kind", ""))
    except ValueError:
        raise ValueError(f"kind: expected one of {', '.join(each.value for each in Kind)}") from None
    until = NEVER
    if "for" in query:
        try:
            until = time.time() + _duration(query["for"])
        except ValidationError:
            raise ValueError("for: expected a duration such as 30m or 24h") from None
    return entry(kind, query.get("value", ""), until, query.get("why", ""), who)
