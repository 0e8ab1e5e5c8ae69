"""An agent that keeps itself registered, at a real data plane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.agent import FlightAuth, Registrar, RegistrationRefusedError
from gateway.routing import AgentState
from tests.conftest import client_context, free_port
from tests.membership.registering import EXECUTOR, RULE, Registering, membership, registering, soon

NAME = "executor-1"


@pytest.fixture
async def gateway(certs: Path) -> AsyncIterator[Registering]:
    async with registering(certs) as running:
        yield running


def registrar(client: httpx.AsyncClient, **options: Any) -> Registrar:
    return Registrar(
        client, NAME, "127.0.0.1:8080", **{"capabilities": ["code.execute"], "lease_s": 1.0, "drain_s": 0.0, **options}
    )


@pytest.mark.parametrize("http2", [False, True])
async def test_an_agent_is_a_member_while_it_runs(gateway: Registering, http2: bool) -> None:
    async with gateway.client(http2=http2) as client:
        options = {"labels": {"tier": "sandbox"}, "protocol": "h2", "zone": "a", "context_path": "/context"}
        async with registrar(client, trust=0.5, lease_s=30.0, **options):
            member = gateway.source.agents[NAME]
            assert (member.spiffe_id, member.port, member.trust, member.zone) == (EXECUTOR, 8080, 0.5, "a")
            assert (member.labels, member.context_path) == ((("tier", "sandbox"),), "/context")
        assert not gateway.source.agents
    assert gateway.store.lost == 0


async def test_it_stays_a_member_longer_than_its_lease(gateway: Registering) -> None:
    async with gateway.client() as client, registrar(client):
        await soon(lambda: gateway.registrations.outcomes["PUT", "renewed"] >= 5)
        assert gateway.source.agents
    assert gateway.store.lost == 0


async def test_it_renews_at_a_third_of_what_was_granted(gateway: Registering) -> None:
    gateway.policies = membership({**RULE, "maxLease": "1s"})
    async with gateway.client() as client, registrar(client, lease_s=3600.0):
        await soon(lambda: gateway.registrations.outcomes["PUT", "renewed"] >= 2)


async def test_a_client_made_for_packets_registers_as_well(gateway: Registering, certs: Path) -> None:
    auth = FlightAuth.from_svid(certs / "executor.pem", certs / "executor-key.pem")
    async with httpx.AsyncClient(
        base_url=gateway.url,
        verify=client_context(certs, "executor"),
        auth=auth,
        headers={"flight-capability": "code.execute"},
        trust_env=False,
    ) as client:
        async with registrar(client):
            assert gateway.source.agents
        assert client.headers["flight-capability"] == "code.execute"


async def test_on_leaving_it_drains_until_the_time_is_over(gateway: Registering) -> None:
    async with gateway.client() as client:
        held = registrar(client, drain_s=0.4)
        await held.__aenter__()
        leaving = asyncio.create_task(held.__aexit__())
        await soon(lambda: gateway.source.agents[NAME].state is AgentState.DRAINING)
        assert not leaving.done()
        await leaving
        assert not gateway.source.agents


async def test_on_leaving_it_goes_as_soon_as_the_gateway_says_so(gateway: Registering) -> None:
    async with gateway.client() as client:
        held = registrar(client, drain_s=60.0)
        await held.__aenter__()
        leaving = asyncio.create_task(held.__aexit__())
        await soon(lambda: gateway.source.agents[NAME].state is AgentState.DRAINING)
        await gateway.store.retire(NAME, EXECUTOR, 0)
        async with asyncio.timeout(10):
            await leaving


async def test_a_gateway_that_restarts_knows_it_again(certs: Path) -> None:
    port = free_port()
    async with httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{port}", verify=client_context(certs, "executor"), trust_env=False
    ) as client:
        held = registrar(client, lease_s=1.5)
        entering = asyncio.create_task(held.__aenter__())  # before there is a gateway
        await soon(lambda: held.trouble)
        async with registering(certs, port=port) as gateway:
            await entering
            assert gateway.source.agents
        await soon(lambda: held.trouble)
        async with registering(certs, port=port) as gateway:
            await soon(lambda: gateway.source.agents)
            await soon(lambda: not held.trouble)
        await held.__aexit__()  # the gateway is away: the lease will end


async def test_a_registration_that_is_refused_is_told_at_once(gateway: Registering) -> None:
    async with gateway.client() as client:
        with pytest.raises(RegistrationRefusedError, match=r"403: rule test/agents does not allow the capability pay"):
            async with registrar(client, capabilities=["pay"]):
                raise AssertionError("it must not get here")
    async with gateway.client() as client, registrar(client), gateway.client("coder") as other:
        with pytest.raises(RegistrationRefusedError) as caught:
            await registrar(other).__aenter__()
        assert caught.value.status == 409


async def test_a_renewal_that_is_refused_is_tried_again(gateway: Registering, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.agent")
    async with gateway.client() as client, registrar(client) as held:
        gateway.policies = membership({**RULE, "names": ["somebody-else"]})
        await soon(lambda: not gateway.source.agents)
        assert "no rule lets you register the name executor-1" in held.trouble
        gateway.policies = membership(RULE)
        await soon(lambda: gateway.source.agents)
        await soon(lambda: not held.trouble)
    assert "/members/executor-1: registered again" in caplog.messages


async def test_it_can_be_the_lifespan_of_an_application(gateway: Registering) -> None:
    async with gateway.client() as client:
        app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("ok"))], lifespan=registrar(client).lifespan)
        async with app.router.lifespan_context(app):
            assert gateway.source.agents
        assert not gateway.source.agents


async def test_whoever_else_answers_is_no_gateway() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="welcome"))
    async with httpx.AsyncClient(base_url="https://gateway", transport=transport) as client:
        held = registrar(client)
        entering = asyncio.create_task(held.__aenter__())
        await soon(lambda: held.trouble)
        assert "no answer of a gateway" in held.trouble
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
