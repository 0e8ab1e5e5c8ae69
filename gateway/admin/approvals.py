"""What waits for an approval, and an operator's answer: ``/approvals``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.admin.access import caller_of
from gateway.admin.operators import MAX_BODY_BYTES, body_of, operators_only, refused, told
from gateway.admin.stream import json
from gateway.admin.workers import OPERATOR
from gateway.approvals import Standing, Waiting
from gateway.approvals.webhook import Said

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

_NOT_DONE: Final = {
    Standing.UNKNOWN: (404, "nothing of this id waits: it was answered, its time is up, or its caller is gone"),
    Standing.NO_APPROVER: (403, "its rule names other approvers"),
    Standing.OWN: (403, "nobody answers what they ask themselves"),
    Standing.NO_CONVERSATION: (409, "the packet is of no conversation: answer with the scope packet"),
}


class Approvals(msgspec.Struct):
    """The answer to ``GET /approvals``."""

    approvals: list[Waiting]
    """The oldest first."""


def approval_routes(gateway: Gateway) -> list[Route]:
    """The endpoints of `gateway`."""

    async def show(_: Request) -> Response:
        return json(Approvals(gateway.desk.waiting))

    async def answer(request: Request) -> Response:
        said = await read_said(request)
        if isinstance(said, Response):
            return said
        caller = caller_of(request.scope)
        who = request.headers.get(OPERATOR, caller.operator) if caller.trusted else caller.operator
        id_ = request.path_params["id"]
        standing = gateway.desk.decide(id_, said.of(who), time.time())
        told(caller, f"{said.decision.value} {id_}", standing.value)
        if standing is not Standing.DONE:
            return refused(*_NOT_DONE[standing])
        return JSONResponse({"id": id_, "decision": said.decision.value, "by": who})

    return [
        Route("/approvals", show),
        Route("/approvals/{id}", operators_only(answer), methods=["POST"]),
    ]


async def read_said(request: Request) -> Said | Response:
    """The decision in a request's body, or why there is none that can be read."""
    body = await body_of(request)
    if body is None:
        return refused(413, f"this takes {MAX_BODY_BYTES} bytes at most")
    try:
        said = msgspec.json.decode(body, type=Said)
    except msgspec.MsgspecError as error:
        return refused(400, f'expected {{"decision": "approve"}} or "deny", with "why" and "scope": {error}')
    if said.by:
        return refused(400, "who answers is who asks this: leave 'by' out")
    return said
