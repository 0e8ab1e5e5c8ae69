"""The admin application of a supervisor: what its workers say, as one gateway's."""

from __future__ import annotations

import os

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.admin import page
from gateway.admin.access import Access
from gateway.admin.merged_routes import merged_routes
from gateway.admin.operators import session_routes
from gateway.admin.workers import WorkerReply, Workers
from gateway.telemetry.exposition import OPENMETRICS, PLAIN, asks_for_openmetrics
from gateway.telemetry.merged import MergedMetrics

MISSING_S = 5.0
"""How long a worker may be missing while the others are ready: it is being replaced, and who connects to it waits."""


def make_merged_app(workers: Workers, access: Access) -> Starlette:
    """The admin endpoints over `workers`; `access` says who is an operator."""
    merged = MergedMetrics()

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        reasons = _not_ready(await workers.ask("/readyz")) if not workers.draining else ["draining"]
        if reasons:
            return PlainTextResponse(f"not ready: {'; '.join(reasons)}\n", status_code=503)
        return PlainTextResponse("ready\n")

    async def metrics(request: Request) -> Response:
        replies = await workers.ask("/metrics")
        texts = {
            f"{each.number}.{each.restarts}": each.answer.text if each.answer is not None else None for each in replies
        }
        up = GaugeMetricFamily(
            "phoenixflight_workers_up", "Workers that answer.", value=sum(each.answer is not None for each in replies)
        )
        restarts = CounterMetricFamily(
            "phoenixflight_worker_restarts",
            "Workers that ended and were replaced.",
            value=sum(each.restarts for each in replies),
        )
        openmetrics = asks_for_openmetrics(request.headers.get("accept", ""))
        text = merged.merge(texts, (up, restarts), openmetrics=openmetrics)
        return Response(text, media_type=OPENMETRICS if openmetrics else PLAIN)

    async def status(_: Request) -> Response:
        replies = await workers.ask("/status")
        told = [each.answer.json() if each.answer is not None else None for each in replies]
        there = [each for each in told if each is not None]
        revisions = {each["revision"] for each in there}
        return JSONResponse(
            {
                "version": __version__,
                "pid": os.getpid(),
                "ready": not workers.draining and not _not_ready(replies),
                "revision": revisions.pop() if len(revisions) == 1 else None,
                "in_step_with_files": all(each["in_step_with_files"] for each in there),
                "needs_restart": sorted({setting for each in there for setting in each["needs_restart"]}),
                "workers": [
                    {"worker": each.number, "pid": each.pid, "restarts": each.restarts, "status": status}
                    for each, status in zip(replies, told, strict=True)
                ],
            }
        )

    async def any_worker(request: Request) -> Response:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        answers = [each.answer for each in await workers.ask(path) if each.answer is not None]
        if not answers:
            return PlainTextResponse("no worker answers\n", status_code=503)
        # A recent packet is known to the worker that it came to.
        best = min(answers, key=lambda answer: answer.status_code)
        return Response(best.content, best.status_code, media_type=best.headers.get("content-type"))

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/status", status),
            Route("/snapshot", any_worker),
            Route("/jwks.json", any_worker),
            Route("/explain", any_worker),
            *merged_routes(workers),
            *session_routes(access),
            *page.routes(),
        ]
    )


def _not_ready(replies: list[WorkerReply]) -> list[str]:
    """Why the gateway is not ready; nothing when it is."""
    reasons: list[str] = []
    ready = 0
    for each in replies:
        if each.answer is None:
            if each.missing_s > MISSING_S or each.starting:
                reasons.append(f"worker {each.number} does not answer")
        elif each.answer.is_success:
            ready += 1
        else:
            reasons.append(f"worker {each.number}: {each.answer.text.strip()}")
    return reasons or ([] if ready else ["no worker answers"])
