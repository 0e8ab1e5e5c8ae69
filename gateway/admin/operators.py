"""What takes an operator, and how a browser becomes one: ``/session``."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.admin.access import Access, Caller, Refused, caller_of
from gateway.admin.sessions import COOKIE, LIFETIME_S

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4096

Endpoint = Callable[[Request], Awaitable[Response]]


class _Shown(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /session``."""

    token: str


def refused(status: int, why: str, retry_after_s: int = 0) -> Response:
    """An answer that says why not."""
    headers = {"retry-after": str(retry_after_s)} if retry_after_s else None
    return JSONResponse({"why": why}, status_code=status, headers=headers)


def operators_only(endpoint: Endpoint) -> Endpoint:
    """`endpoint`, for operators; what changes something takes a body of JSON, which no form of another page sends."""

    async def guarded(request: Request) -> Response:
        caller = caller_of(request.scope)
        if not caller.operator:
            log.warning("refused to who is no operator: %s %s", request.method, request.url.path)
            return refused(403, f"this takes an operator: {caller.why}")
        if request.method == "POST" and not is_json(request):
            return refused(415, "this takes content-type: application/json")
        return await endpoint(request)

    return guarded


def is_json(request: Request) -> bool:
    """Whether the request says that its body is JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def told(caller: Caller, what: str, came_to: object) -> None:
    """Log what an operator did; of several workers the supervisor tells, which knows who it was."""
    if caller.trusted:
        log.info("operation: %s: %s", what, came_to)
    else:
        log.info("operator %s: %s: %s", caller.operator, what, came_to)


async def body_of(request: Request) -> bytes | None:
    """The body, ``None`` when it is longer than `MAX_BODY_BYTES`."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def session_routes(access: Access) -> list[Route]:
    """``/session`` where `access` says who is an operator."""

    async def begin(request: Request) -> Response:
        if not access.takes_tokens:
            return refused(409, "this port knows no token: admin.tokenFile is not set")
        if not is_json(request):
            return refused(415, "this takes content-type: application/json")
        body = await body_of(request)
        if body is None:
            return refused(413, f"this takes {MAX_BODY_BYTES} bytes at most")
        try:
            shown = msgspec.json.decode(body, type=_Shown)
        except msgspec.MsgspecError:
            return refused(400, 'expected {"token": "…"}')
        address = request.client.host if request.client is not None else ""
        caller = access.try_token(shown.token, address)
        if isinstance(caller, Refused):
            return refused(caller.status, caller.reason, caller.retry_after_s)
        if not caller.operator:
            return refused(401, "this is not the token")
        who = f"session from {address}"
        log.info("operator %s: begun", who)
        answer = JSONResponse({"operator": True, "why": "it has a session"})
        secure = request.url.scheme == "https"
        value = access.begin(who)
        answer.set_cookie(COOKIE, value, LIFETIME_S, path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    async def end(request: Request) -> Response:
        access.end(request.headers)
        answer = JSONResponse({"operator": False, "why": "the session has ended"})
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    async def show(request: Request) -> Response:
        caller = caller_of(request.scope)
        return JSONResponse(
            {"operator": bool(caller.operator), "why": caller.why}, headers={"cache-control": "no-store"}
        )

    return [
        Route("/session", show),
        Route("/session", begin, methods=["POST"]),
        Route("/session", end, methods=["DELETE"]),
    ]
