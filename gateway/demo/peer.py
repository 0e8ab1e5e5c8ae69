"""What every agent of the demo shares: who it is, and how it reaches the gateway.

An ordinary HTTP client with a client certificate; what a packet carries on is `gateway.agent`'s business.  Copy this
file as a start.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import hypercorn.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

PROBLEM = "application/problem+json"
"""RFC 9457: how the gateway tells why it refused."""

TIMEOUT_S = 30.0
"""How long an agent waits for the next byte of an answer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where an agent listens, where its gateway is, and who it is."""

    host: str
    port: int
    gateway: str
    """The gateway's mTLS listener, such as ``https://127.0.0.1:8443``."""
    certificate: Path
    """This agent's SVID (a PEM chain), both as client and, where it serves TLS, as server."""
    key: Path
    trust_bundle: Path
    """PEM roots that the gateway, and whoever calls this agent over TLS, must chain to."""

    @classmethod
    def from_environment(cls) -> Settings:
        """Read ``FLIGHT_LISTEN``, ``FLIGHT_GATEWAY``, ``FLIGHT_CERT``, ``FLIGHT_KEY`` and ``FLIGHT_CA``.

        Raises:
            KeyError: one is not set.

        """
        host, _, port = os.environ["FLIGHT_LISTEN"].rpartition(":")
        return cls(
            host=host,
            port=int(port),
            gateway=os.environ["FLIGHT_GATEWAY"],
            certificate=Path(os.environ["FLIGHT_CERT"]),
            key=Path(os.environ["FLIGHT_KEY"]),
            trust_bundle=Path(os.environ["FLIGHT_CA"]),
        )


def client_tls(settings: Settings) -> ssl.SSLContext:
    """TLS that shows this agent's SVID and believes the mesh's roots alone.

    One for each client: an HTTP/2 client sets its own ALPN protocols in the context that it is given.
    """
    context = ssl.create_default_context(cafile=settings.trust_bundle)
    context.load_cert_chain(settings.certificate, settings.key)
    return context


def gateway_client(settings: Settings) -> httpx.AsyncClient:
    """An HTTP/2 client for the gateway; close it, or use it as a context."""
    return httpx.AsyncClient(
        base_url=settings.gateway,
        verify=client_tls(settings),
        http2=True,
        timeout=TIMEOUT_S,
        trust_env=False,  # a proxy for the Internet has no place between an agent and its gateway
    )


async def raise_for_problem(response: httpx.Response) -> None:
    """Do nothing for an answer that is not an error.

    Raises:
        httpx.HTTPStatusError: it is one; in the words of the gateway, or of the agent, where it has some.

    """
    if response.headers.get("content-type") == PROBLEM:
        await response.aread()
        problem = response.json()
        words = f"{problem['title']}: {problem['detail']}"
        raise httpx.HTTPStatusError(words, request=response.request, response=response)
    response.raise_for_status()


def in_words(error: Exception) -> str:
    """What `error` says of itself; a connection that broke often says nothing."""
    return str(error) or type(error).__name__


async def not_handed_on(_: Request, error: Exception) -> Response:
    """Tell whoever handed work to us that we could not hand it on in our turn."""
    problem = {"title": "The work could not be handed on", "status": 502, "detail": in_words(error)}
    return JSONResponse(problem, status_code=502, media_type=PROBLEM)


def create_app(routes: Sequence[BaseRoute], settings: Settings) -> Starlette:
    """An ASGI application whose handlers find a client for the gateway in ``request.state.gateway``."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
        async with gateway_client(settings) as gateway:
            yield {"gateway": gateway}

    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={httpx.HTTPError: not_handed_on})


def serve_http1(app: Starlette, settings: Settings, *, tls: bool) -> None:
    """Serve `app` over HTTP/1.1 until told to stop; with `tls`, to callers with an SVID only."""
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
        ssl_certfile=settings.certificate if tls else None,
        ssl_keyfile=str(settings.key) if tls else None,
        ssl_ca_certs=str(settings.trust_bundle) if tls else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls else ssl.CERT_NONE,
    )


def serve_http2(app: Starlette, settings: Settings, *, tls: bool) -> None:
    """Serve `app` over HTTP/2 until told to stop: ``h2`` to callers with an SVID only, else ``h2c``."""
    config = hypercorn.Config()
    config.bind = [f"{settings.host}:{settings.port}"]
    config.loglevel = "WARNING"
    config.graceful_timeout = 1
    if tls:
        config.alpn_protocols = ["h2"]
        config.certfile = str(settings.certificate)
        config.keyfile = str(settings.key)
        config.ca_certs = str(settings.trust_bundle)
        config.verify_mode = ssl.CERT_REQUIRED
    asyncio.run(hypercorn.asyncio.serve(app, config))  # type: ignore[arg-type]
