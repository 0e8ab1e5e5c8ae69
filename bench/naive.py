"""The obvious Python proxy: Hypercorn + Starlette + httpx, doing the bench's work.

`python -m bench.naive SITE.json` runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import ssl
import sys
import time
import uuid
from bisect import bisect
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import httpx
import hypercorn.asyncio.run as hypercorn_run
from hypercorn.asyncio import serve
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import set_span_in_context
from prometheus_client import Counter, Histogram, start_http_server
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bench.certs import PLANNER
from bench.process import module
from bench.proxy import Kind, Site

_POLICY = {"from": PLANNER + "*", "capabilities": "code.*"}
_VIRTUAL_NODES = 128
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}

_HANDOFFS = Counter("handoffs", "Handoffs.", ["capability", "agent", "outcome"])
_DURATION = Histogram("handoff_seconds", "Duration.", ["capability"])

_peer: ContextVar[str] = ContextVar("peer", default="")
log = logging.getLogger("access")


class _PeerAware(TCPServer):
    """Hypercorn keeps the caller's certificate to itself: leave its SPIFFE id where the connection's tasks see it."""

    async def run(self) -> None:
        certificate = self.writer.get_extra_info("ssl_object").getpeercert()
        names = dict(certificate.get("subjectAltName", ()))
        _peer.set(names.get("URI", ""))
        await super().run()


class _Ring:
    def __init__(self, agents: list[str]) -> None:
        points = sorted((_hash(f"{agent}#{n}"), agent) for agent in agents for n in range(_VIRTUAL_NODES))
        self._hashes = [point for point, _ in points]
        self._agents = [agent for _, agent in points]

    def pick(self, key: str) -> str:
        return self._agents[bisect(self._hashes, _hash(key)) % len(self._agents)]


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])


def _application(site: Site) -> Starlette:
    ring = _Ring([f"http://127.0.0.1:{port}" for port in site.agents])
    limits = httpx.Limits(max_connections=2048, max_keepalive_connections=256)
    client = httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(None, connect=5.0))
    provider = TracerProvider(sampler=TraceIdRatioBased(0.01), resource=Resource.create({"service.name": "naive"}))
    endpoint = f"http://127.0.0.1:{site.otlp}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    tracer = provider.get_tracer("naive")

    async def handoff(request: Request) -> Response:
        started = time.perf_counter()
        caller = _peer.get()
        capability = request.headers.get("flight-capability", "")
        conversation = request.headers.get("flight-conversation", "")
        flight_id = request.headers.get("flight-id") or str(uuid.uuid4())
        record = {
            "time": time.time(),
            "flight_id": flight_id,
            "conversation": conversation,
            "from": caller,
            "capability": capability,
            "method": request.method,
            "path": request.url.path,
        }
        wanted = [each.strip() for each in capability.split(",")]
        allowed = fnmatchcase(caller, _POLICY["from"]) and all(
            fnmatchcase(each, _POLICY["capabilities"]) for each in wanted
        )
        if not allowed:
            _HANDOFFS.labels(capability, "", "refused").inc()
            log.info(json.dumps({**record, "outcome": "refused", "status": 403}))
            return JSONResponse({"title": "denied by policy"}, 403)
        agent = ring.pick(conversation)
        span = tracer.start_span("handoff")
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        inject(headers, set_span_in_context(span))
        url = agent + request.url.path + ("?" + request.url.query if request.url.query else "")
        outgoing = client.build_request(request.method, url, headers=headers, content=request.stream())
        answer = await client.send(outgoing, stream=True)

        async def finish() -> None:
            await answer.aclose()
            took = time.perf_counter() - started
            span.set_attribute("http.response.status_code", answer.status_code)
            span.end()
            _HANDOFFS.labels(capability, agent, "completed").inc()
            _DURATION.labels(capability).observe(took)
            done = {"agent": agent, "outcome": "completed", "status": answer.status_code}
            log.info(json.dumps({**record, **done, "duration_ms": took * 1000}))

        returned = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, returned, background=BackgroundTask(finish))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    every = ["GET", "POST", "PUT", "DELETE", "PATCH"]
    return Starlette(routes=[Route("/{path:path}", handoff, methods=every)], lifespan=lifespan)


def _run(site: Site) -> None:
    handler = logging.FileHandler(site.access_log)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    start_http_server(site.admin, addr="127.0.0.1")
    config = Config()
    config.bind = [f"127.0.0.1:{site.port}"]
    config.certfile = str(site.certs / "gateway.pem")
    config.keyfile = str(site.certs / "gateway-key.pem")
    config.ca_certs = str(site.certs / "ca.pem")
    config.verify_mode = ssl.CERT_REQUIRED
    config.alpn_protocols = ["h2", "http/1.1"]
    config.keep_alive_max_requests = 1_000_000_000
    config.keep_alive_timeout = 300
    asyncio.run(serve(_application(site), config))


def prepare(site: Site) -> list[str]:
    """Write what it needs to know; give the command line."""
    document = site.folder / "site.json"
    document.write_text(json.dumps(asdict(site), default=str))
    return module("bench.naive", document)


NAIVE = Kind("naive", "Hypercorn + Starlette + httpx", prepare, metrics_path="/metrics", rate=50)

if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    hypercorn_run.TCPServer = _PeerAware
    _run(Site(**{**given, "folder": Path(given["folder"]), "certs": Path(given["certs"])}))
