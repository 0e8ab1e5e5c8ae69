"""Registering over the wire: real sockets, mTLS, both HTTP versions."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.control.config import ClientAuth
from gateway.membership.registration import Registration
from gateway.membership.registration_store import RegistrationMemory, Stored
from gateway.routing import AgentState, Protocol
from tests.conftest import CAPABILITY, client_context
from tests.membership.registering import BODY, EXECUTOR, RULE, Registering, membership, registering, soon

ME = "/members/executor-1"


@pytest.fixture
async def gateway(certs: Path) -> AsyncIterator[Registering]:
    async with registering(certs) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["http/1.1", "h2"])
async def agent(gateway: Registering, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client(http2=request.param) as client:
        yield client


def problem(response: httpx.Response) -> tuple[int, str, str]:
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == response.status_code
    return response.status_code, told["type"].removeprefix("urn:phoenixflight:"), told["detail"]


async def test_an_agent_registers_renews_looks_and_retires(gateway: Registering, agent: httpx.AsyncClient) -> None:
    first = await agent.put(ME, json={**BODY, "lease": "30s"})
    assert first.status_code == 201
    assert first.json() == {
        "name": "executor-1",
        "state": "ready",
        "address": "127.0.0.1:8080",
        "capabilities": ["code.execute"],
        "agentCard": False,
        "trust": 0.9,
        "labels": {},
        "protocol": "http/1.1",
        "zone": "",
        "contextPath": "",
        "leaseSeconds": 30.0,
        "renewSeconds": 10.0,
        "expiresInSeconds": 30.0,
    }
    before = gateway.changes
    assert (await agent.put(ME, json={**BODY, "lease": "30s"})).status_code == 200
    assert gateway.changes == before, "a renewal makes no new snapshot"
    shown = (await agent.get(ME)).json()
    assert 0 < shown.pop("expiresInSeconds") <= 30
    assert shown.items() <= first.json().items()
    retired = await agent.delete(f"{ME}?drain=50ms")
    assert (retired.status_code, retired.json()["state"]) == (202, "draining")
    assert gateway.source.agents["executor-1"].state is AgentState.DRAINING
    await soon(lambda: not gateway.source.agents)
    assert problem(await agent.get(ME))[:2] == (404, "not-registered")
    assert gateway.store.lost == 0


async def test_what_is_registered_is_a_member_with_its_callers_identity(
    gateway: Registering, agent: httpx.AsyncClient
) -> None:
    body = {
        **BODY,
        "address": "127.0.0.1:1",
        "trust": 0.5,
        "labels": {"tier": "sandbox"},
        "protocol": "h2",
        "zone": "a",
    }
    assert (await agent.put(ME, json=body)).status_code == 201
    member = gateway.source.agents["executor-1"]
    assert (member.host, member.port, member.trust, member.zone) == ("127.0.0.1", 1, 0.5, "a")
    assert (member.labels, member.protocol) == ((("tier", "sandbox"),), Protocol.H2)
    assert (member.spiffe_id, member.capabilities, member.tls) == (EXECUTOR, {"code.execute"}, True)


async def test_a_packet_reaches_an_agent_that_has_registered(gateway: Registering, certs: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
        await writer.drain()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs / "ca.pem")
    context.load_cert_chain(certs / "executor.pem", certs / "executor-key.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, gateway.client() as agent, gateway.client("planner") as planner:
        assert (await planner.get("/run", headers=CAPABILITY)).status_code == 404
        assert (await agent.put(ME, json={**BODY, "address": address})).status_code == 201
        answer = await planner.get("/run", headers=CAPABILITY)
        assert (answer.text, answer.headers["flight-agent"]) == ("done", '"executor-1"')
        # The agent's own certificate is the proof: another's at the same address is not believed.
        async with gateway.client("coder") as coder:
            await agent.delete(f"{ME}?drain=0s")
            assert (await coder.put("/members/coder-1", json={**BODY, "address": address})).status_code == 201
        assert (await planner.get("/run", headers=CAPABILITY)).status_code == 503


async def test_a_lease_that_is_not_renewed_ends(gateway: Registering, agent: httpx.AsyncClient) -> None:
    gateway.policies = membership({**RULE, "maxLease": "1s"})
    granted = await agent.put(ME, json={**BODY, "lease": "1h"})
    assert granted.json()["leaseSeconds"] == 1, "a longer lease is cut to what the rule allows"
    await soon(lambda: not gateway.source.agents)
    assert gateway.store.lost == 1
    assert (await agent.put(ME, json=BODY)).status_code == 201


async def test_a_name_belongs_to_whoever_registered_it_first(gateway: Registering, agent: httpx.AsyncClient) -> None:
    await agent.put(ME, json=BODY)
    async with gateway.client("coder") as other:
        status, reason, detail = problem(await other.put(ME, json=BODY))
        assert (status, reason) == (409, "name-taken")
        assert "executor" not in detail.replace("executor-1", "")
        assert problem(await other.get(ME))[:2] == (404, "not-registered")
        assert problem(await other.delete(ME))[:2] == (404, "not-registered")
        assert gateway.source.agents["executor-1"].spiffe_id == EXECUTOR
        await agent.delete(f"{ME}?drain=0s")
        assert (await other.put(ME, json=BODY)).status_code == 201


async def test_names_of_configured_members_cannot_be_taken(gateway: Registering, agent: httpx.AsyncClient) -> None:
    gateway.reserved.add("executor-1")
    assert problem(await agent.put(ME, json=BODY))[:2] == (409, "name-taken")


async def test_an_agent_that_comes_back_while_it_drains_is_ready_again(
    gateway: Registering, agent: httpx.AsyncClient
) -> None:
    await agent.put(ME, json=BODY)
    assert (await agent.delete(ME)).json()["expiresInSeconds"] == 30
    assert (await agent.get(ME)).json()["state"] == "draining"
    assert (await agent.put(ME, json=BODY)).json()["state"] == "ready"
    assert gateway.source.agents["executor-1"].state is AgentState.READY


async def test_what_no_policy_allows_is_refused_and_told_by_the_rules_name(
    gateway: Registering, agent: httpx.AsyncClient
) -> None:
    assert problem(await agent.put(ME, json={**BODY, "capabilities": ["pay"]})) == (
        403,
        "registration-denied",
        "rule test/agents does not allow the capability pay",
    )
    assert problem(await agent.put(ME, json={**BODY, "address": "10.0.0.1:80"}))[:2] == (403, "registration-denied")
    gateway.policies = membership({**RULE, "from": ["spiffe://elsewhere"]})
    assert problem(await agent.put(ME, json=BODY)) == (403, "registration-denied", "no rule lets you register agents")
    assert not gateway.source.agents


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"address": "nowhere"}, "address: expected host:port"),
        ({"address": "127.0.0.1:0"}, "address: nobody can be reached on port 0"),
        ({"trust": 1.5}, "trust: expected 1.0 or less"),
        ({"trust": -0.1}, "trust: expected 0.0 or more"),
        ({"trust": "high"}, "trust: expected a number"),
        ({"capabilities": ["code execute"]}, "capabilities.0: 'code execute' is not a capability"),
        ({"capabilities": []}, "capabilities: name at least one"),
        ({"capabilities": ["a"] * 257}, "capabilities: "),
        ({"labels": {"tier": 1}}, "labels.tier: expected text"),
        ({"protocol": "h2c"}, "protocol: h2c is plaintext"),
        ({"protocol": "h3"}, "protocol: expected 'http/1.1', 'h2c' or 'h2'"),
        ({"zone": "a\nb"}, "zone: expected text of the form"),
        ({"contextPath": "context"}, "contextPath: expected a path, such as /context"),
        ({"address": "a..local:80"}, "address: expected host:port"),
        ({"lease": "soon"}, "lease: expected a duration"),
        ({"lease": "10ms"}, "lease: expected 1.0 or more"),
        ({"adress": "x"}, "unknown field 'adress'; did you mean 'address'?"),
        ({"spiffeId": "spiffe://a/b"}, "unknown field 'spiffeId'"),
    ],
)
async def test_a_malformed_registration_is_refused_naming_the_field(
    gateway: Registering, agent: httpx.AsyncClient, change: dict[str, Any], told: str
) -> None:
    status, reason, detail = problem(await agent.put(ME, json={**BODY, **change}))
    assert (status, reason) == (400, "malformed-registration")
    assert told in detail
    assert not gateway.source.agents


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60_000, b'{"a": "\xff"}', b"[]", b"null", b'{"trust": NaN}'])
async def test_a_body_that_is_no_json_object_is_refused(agent: httpx.AsyncClient, body: bytes) -> None:
    status, reason, detail = problem(await agent.put(ME, content=body))
    assert (status, reason) == (400, "malformed-registration")
    assert "JSON" in detail


async def test_a_body_over_its_bound_is_refused(gateway: Registering, agent: httpx.AsyncClient) -> None:
    assert problem(await agent.put(ME, content=b" " * (64 * 1024 + 1)))[:2] == (413, "body-too-large")
    assert (await agent.put(ME, json=BODY)).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("PUT", "/members/Executor_1", 400, "name: 'Executor_1' is not a name"),
        ("PUT", "/members/", 400, "name: '' is not a name"),
        ("PUT", "/members/a/b", 400, "name: 'a/b' is not a name"),
        ("DELETE", f"{ME}?drain=soon", 400, "drain: expected a duration"),
        ("DELETE", f"{ME}?drain=2h", 400, "drain: expected 600s or less"),
        ("DELETE", f"{ME}?when=now", 400, "unknown parameter 'when'; known here: drain"),
        ("POST", ME, 405, "PUT registers"),
    ],
)
async def test_a_wrong_name_method_or_parameter_is_told(
    agent: httpx.AsyncClient, method: str, path: str, status: int, told: str
) -> None:
    answer = await agent.request(method, path, json=BODY)
    assert answer.status_code == status
    assert told in problem(answer)[2]
    assert ("allow" in answer.headers) == (status == 405)


async def test_a_head_request_has_no_body(agent: httpx.AsyncClient) -> None:
    answer = await agent.head(ME)
    assert (answer.status_code, answer.content) == (405, b"")
    assert (await agent.get(ME)).status_code == 404


@pytest.mark.parametrize("http2", [False, True])
async def test_a_caller_without_an_identity_registers_nothing(certs: Path, http2: bool) -> None:
    async with (
        registering(certs, client_auth=ClientAuth.OPTIONAL) as gateway,
        gateway.client(None, http2=http2) as nobody,
    ):
        assert problem(await nobody.put(ME, json=BODY))[:2] == (401, "identity-required")
        assert not gateway.source.agents


async def test_a_packet_may_have_such_a_path(gateway: Registering, agent: httpx.AsyncClient) -> None:
    answer = await agent.put(ME, json=BODY, headers=CAPABILITY)
    assert problem(answer)[:2] == (404, "capability-unknown")
    answer = await agent.put(ME, json=BODY, headers={"host": "code.execute.flight.internal"})
    assert problem(answer)[:2] == (404, "capability-unknown")
    assert problem(await agent.put("/member/executor-1", json=BODY))[:2] == (400, "malformed-packet")


async def test_without_registration_such_a_request_is_no_packet(gateway: Registering, agent: httpx.AsyncClient) -> None:
    gateway.plane.local = None
    assert problem(await agent.put(ME, json=BODY))[:2] == (400, "malformed-packet")


async def test_there_is_a_bound_for_one_principal_and_one_for_all(certs: Path) -> None:
    store = RegistrationMemory(max_registrations=3, max_per_principal=2)
    async with registering(certs, store) as gateway, gateway.client() as one, gateway.client("coder") as other:
        assert (await one.put("/members/executor-1", json=BODY)).status_code == 201
        assert (await one.put("/members/executor-2", json=BODY)).status_code == 201
        refused = await one.put("/members/executor-3", json=BODY)
        assert problem(refused)[:2] == (429, "too-many-registrations")
        assert int(refused.headers["retry-after"]) > 0
        assert (await one.put("/members/executor-2", json=BODY)).status_code == 200, "what lives may be renewed"
        assert (await other.put("/members/coder-1", json=BODY)).status_code == 201
        assert problem(await other.put("/members/coder-2", json=BODY))[:2] == (429, "too-many-registrations")
        await one.delete("/members/executor-1?drain=0s")
        assert (await other.put("/members/coder-2", json=BODY)).status_code == 201


async def test_each_request_is_counted_and_what_changes_is_logged(
    gateway: Registering, agent: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.membership")
    await agent.put(ME, json=BODY)
    await agent.put(ME, json=BODY)
    await agent.put(ME, json={**BODY, "capabilities": ["pay"]})
    await agent.delete(f"{ME}?drain=0s")
    await agent.request("PATCH", ME)
    assert gateway.registrations.outcomes == {
        ("PUT", "created"): 1,
        ("PUT", "renewed"): 1,
        ("PUT", "registration-denied"): 1,
        ("DELETE", "retired"): 1,
        ("other", "method-not-allowed"): 1,
    }
    lines = [record.getMessage() for record in caplog.records]
    assert f"registration: PUT of 'executor-1' by {EXECUTOR}: created, rule test/agents" in lines
    assert f"registration: PUT of 'executor-1' by {EXECUTOR}: registration-denied, rule test/agents" in lines
    assert f"registration: DELETE of 'executor-1' by {EXECUTOR}: retired" in lines
    assert not any("renewed" in line for line in lines)


async def test_a_caller_that_waits_for_leave_to_send_gets_it(gateway: Registering, certs: Path) -> None:
    context = client_context(certs, "executor")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port, ssl=context, server_hostname="")
    writer.write(b"PUT /members/executor-1 HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_handler_that_fails_costs_one_answer(gateway: Registering, agent: httpx.AsyncClient) -> None:
    def fail() -> Any:
        raise RuntimeError("a defect")

    policies, gateway.registrations._policies = gateway.registrations._policies, fail
    assert problem(await agent.put(ME, json=BODY))[:2] == (500, "internal")
    gateway.registrations._policies = policies
    assert (await agent.put(ME, json=BODY)).status_code == 201


class SlowStore(RegistrationMemory):
    """Registers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def put(self, registration: Registration) -> Stored:
        self.asked.set()
        await self.let.wait()
        return await super().put(registration)


async def test_a_gateway_that_stops_still_answers_what_it_was_asked(certs: Path) -> None:
    store = SlowStore()
    async with registering(certs, store) as gateway, gateway.client() as agent:
        asking = asyncio.create_task(agent.put(ME, json=BODY))
        await store.asked.wait()
        stopping = asyncio.create_task(gateway.plane.stop(10, asyncio.Event()))
        await asyncio.sleep(0)
        assert not stopping.done()
        store.let.set()
        assert (await asking).status_code == 201
        assert await stopping


async def test_what_a_caller_asked_for_is_done_even_if_it_has_gone(certs: Path) -> None:
    store = SlowStore()
    async with registering(certs, store) as gateway:
        async with gateway.client() as agent:
            asking = asyncio.create_task(agent.put(ME, json=BODY))
            await store.asked.wait()
            asking.cancel()
        await soon(lambda: not gateway.plane.in_flight)
        store.let.set()
        await soon(lambda: gateway.source.agents)


async def test_a_caller_whose_certificate_ends_meanwhile_is_told_so(certs: Path) -> None:
    store = SlowStore()
    async with registering(certs, store) as gateway, gateway.client() as agent:
        asking = asyncio.create_task(agent.put(ME, json=BODY))
        await store.asked.wait()
        for connection in gateway.listener.connections:
            connection.expire()
        assert problem(await asking)[:2] == (401, "identity-required")
        store.let.set()
