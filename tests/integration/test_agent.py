"""Agents made with `gateway.agent` on both sides of a real gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.agent import FlightAuth, FlightMiddleware
from gateway.identity import SpiffeId
from gateway.packet.keys import Key, KeySet
from tests.conftest import CAPABILITY, StartGateway, client_context, free_port, member

PLANNER = SpiffeId("spiffe://mesh.local/ns/agents/sa/planner")


async def run(request: Request) -> JSONResponse:
    arrival = request.scope["flight"]
    return JSONResponse({"signer": arrival.signature.signer, "body": (await request.body()).decode()})


@pytest.fixture
async def agent_port(certs: Path) -> AsyncIterator[int]:
    """An agent that takes only what the planner signed with its SVID's key."""
    public = x509.load_pem_x509_certificate((certs / "planner.pem").read_bytes()).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    keys = KeySet({PLANNER: Key(PLANNER, PLANNER, public)})
    config = Config()
    port = free_port()
    config.bind = [f"127.0.0.1:{port}"]
    stop = asyncio.Event()
    app = FlightMiddleware(Starlette(routes=[Route("/run", run, methods=["POST"])]), keys)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(app, config, shutdown_trigger=stop.wait))
        yield port
        stop.set()


@pytest.mark.parametrize("protocol", ["http/1.1", "h2c"])
@pytest.mark.parametrize("http2", [False, True])
async def test_what_a_caller_signed_holds_behind_the_gateway(
    agent_port: int, certs: Path, start_gateway: StartGateway, protocol: str, http2: bool
) -> None:
    gateway = await asyncio.to_thread(start_gateway, [member(agent_port, protocol=protocol)])
    auth = FlightAuth.from_svid(certs / "planner.pem", certs / "planner-key.pem")
    async with httpx.AsyncClient(
        base_url=gateway.url, verify=client_context(certs), http2=http2, auth=auth, headers=CAPABILITY, trust_env=False
    ) as client:
        answer = await client.post("/run?x=1", content=b"job")
        assert answer.json() == {"signer": PLANNER, "body": "job"}
        unsigned = await client.post("/run", content=b"job", auth=httpx.Auth())
        assert json.loads(unsigned.text)["type"] == "urn:phoenixflight:signature-invalid"
