"""The admin application."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.admin import page
from gateway.admin.access import Access
from gateway.admin.approvals import approval_routes
from gateway.admin.contexts import context_routes
from gateway.admin.conversations import conversation_routes
from gateway.admin.debug import debug_routes
from gateway.admin.explain import explain_endpoint
from gateway.admin.members import member_routes
from gateway.admin.operations import operation_routes
from gateway.admin.operators import session_routes
from gateway.admin.policies import policy_routes
from gateway.admin.revocations import revocation_routes
from gateway.admin.snapshot import described
from gateway.admin.stream import live_routes
from gateway.proxy import exchange
from gateway.proxy.codec import HTTP1_IMPLEMENTATION, HTTP2_IMPLEMENTATION
from gateway.telemetry.exposition import OPENMETRICS, PLAIN, asks_for_openmetrics, in_slices

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway
    from gateway.control.reload import ReloadEvent


def _text(when: datetime | None) -> str | None:
    return when.isoformat(timespec="milliseconds") if when is not None else None


def _event(event: ReloadEvent) -> dict[str, object]:
    came_to = {"revision": event.revision} if event.revision is not None else {"problems": event.problems}
    return {"at": _text(event.at), **came_to}


def make_app(gateway: Gateway, access: Access | None = None) -> Starlette:
    """The admin endpoints of `gateway`; with `access` they say who is an operator, without it a supervisor does."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if gateway.unready:
            return PlainTextResponse(f"not ready: {gateway.unready}\n", status_code=503)
        return PlainTextResponse("ready\n")

    async def metrics(request: Request) -> Response:
        if gateway.plane is not None:
            gateway.plane.records.settle()
        openmetrics = asks_for_openmetrics(request.headers.get("accept", ""))
        text = await in_slices(gateway.metrics.pieces(openmetrics=openmetrics))
        return Response(text, media_type=OPENMETRICS if openmetrics else PLAIN)

    async def status(_: Request) -> Response:
        told = gateway.status
        return JSONResponse(
            {
                "version": __version__,
                "pid": os.getpid(),
                "http1": HTTP1_IMPLEMENTATION,
                "http2": HTTP2_IMPLEMENTATION,
                "compiled": not str(exchange.__file__).endswith(".py"),
                "event_loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
                "ready": gateway.ready,
                "revision": told.revision,
                "since": _text(told.since),
                "files": told.files,
                "in_step_with_files": gateway.metrics.last_reload_ok,
                "needs_restart": told.restart,
                "last_refused": _event(told.last_refused) if told.last_refused else None,
                "warnings": told.warnings,
                "history": [_event(event) for event in told.history],
                "certificates_since": _text(told.certificates_since),
                "certificates": gateway.tls.status(datetime.now(UTC)),
                "shared_replay": (gateway.shared.replay.trouble or "ok") if gateway.config.redis else None,
                "shared_leases": (gateway.shared.leases.trouble or "ok") if gateway.config.redis else None,
                "shared_ledger": (gateway.shared.ledger.trouble or "ok") if gateway.config.redis else None,
                "shared_budgets": (gateway.shared.budgets.trouble or "ok") if gateway.config.redis else None,
                "revocations": gateway.revocations.trouble or "ok",
                "membership": gateway.membership.status(),
            }
        )

    async def snapshot(_: Request) -> Response:
        return JSONResponse(described(gateway.snapshot))

    async def jwks(_: Request) -> Response:
        authority = gateway.snapshot.authority
        keys = authority.jwks() if authority is not None else {"keys": []}
        return JSONResponse(keys, media_type="application/jwk-set+json")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/status", status),
            Route("/snapshot", snapshot),
            Route("/jwks.json", jwks),
            Route("/explain", explain_endpoint(gateway)),
            *live_routes(gateway.live, gateway.recent),
            *conversation_routes(gateway),
            *context_routes(gateway),
            *member_routes(gateway),
            *approval_routes(gateway),
            *policy_routes(gateway),
            *operation_routes(gateway),
            *revocation_routes(gateway),
            *debug_routes(gateway),
            *(session_routes(access) if access is not None else ()),
            *(page.routes() if access is not None else ()),
        ]
    )
