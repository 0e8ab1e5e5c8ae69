"""One check of a real server, over a real socket."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.control.certs_dev import issue_dev_certificates
from gateway.control.config import Identity
from gateway.control.tls import TlsContexts
from gateway.identity import SpiffeId
from gateway.membership.health import CheckSpec, CheckType
from gateway.membership.health.probe import probe
from gateway.routing import Agent, Protocol
from tests.membership.health.fleet import no_tls
from tests.membership.health.servers import NOT_SERVING, GrpcAgent, Http1Agent, http2_agent, until
from tests.waiting import free_port

EXECUTOR = SpiffeId("spiffe://mesh.local/ns/agents/sa/executor")
CODER = SpiffeId("spiffe://mesh.local/ns/agents/sa/coder")
HTTP = CheckSpec(timeout_s="5s")
GRPC = CheckSpec(type=CheckType.GRPC, timeout_s="5s")
TCP = CheckSpec(type=CheckType.TCP, timeout_s="5s")


def at(port: int, protocol: Protocol = Protocol.HTTP1, spiffe_id: SpiffeId | None = None) -> Agent:
    return Agent("executor-1", "127.0.0.1", port, frozenset({"code.execute"}), protocol=protocol, spiffe_id=spiffe_id)


@pytest.fixture
def contexts(certs: Path) -> TlsContexts:
    identity = Identity(certificate=certs / "gateway.pem", key=certs / "gateway-key.pem", trust_bundle=certs / "ca.pem")
    return TlsContexts(identity, None)


def executor_tls(certs: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "executor.pem", certs / "executor-key.pem")
    context.load_verify_locations(certs / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    return context


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.0 200\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\n\r\n", "/healthz answered 302"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "/healthz answered 404"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "/healthz answered 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        (b"x" * 200_000, "the answer is not HTTP"),
    ],
)
async def test_over_http1_any_2xx_is_healthy(answer: bytes, told: str) -> None:
    async with Http1Agent().running() as agent:
        agent.answer = answer
        assert await probe(at(agent.port), HTTP, no_tls) == told
        assert agent.asked[0].startswith(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % agent.port)


async def test_the_path_and_the_port_can_be_others() -> None:
    async with Http1Agent().running() as agent:
        check = CheckSpec(path="/ready?deep=1", port=agent.port)
        assert await probe(at(1), check, no_tls) == ""
        assert agent.asked[0].startswith(b"GET /ready?deep=1 HTTP/1.1\r\n")


@pytest.mark.parametrize(("status", "told"), [(200, ""), (500, "/healthz answered 500")])
async def test_over_http2_any_2xx_is_healthy(status: int, told: str) -> None:
    async with http2_agent(status) as port:
        assert await probe(at(port, Protocol.H2C), HTTP, no_tls) == told


@pytest.mark.parametrize("protocol", [Protocol.H2C, Protocol.HTTP1])
async def test_a_grpc_server_says_whether_it_serves(protocol: Protocol) -> None:
    with GrpcAgent().running() as agent:
        assert await probe(at(agent.port, protocol), GRPC, no_tls) == ""
        for status in (NOT_SERVING, 0):
            agent.status = status
            assert (
                await probe(at(agent.port, protocol), GRPC, no_tls) == "the health service says that it is not serving"
            )


async def test_a_grpc_server_without_the_health_service_is_not_healthy() -> None:
    agent = GrpcAgent()
    agent.served = "agent.Agent"
    with agent.running():
        assert (
            await probe(at(agent.port, Protocol.H2C), GRPC, no_tls) == "the health service answered 200, grpc-status 12"
        )


async def test_what_is_no_http2_is_told() -> None:
    async with Http1Agent().running() as agent:
        assert await probe(at(agent.port, Protocol.H2C), GRPC, no_tls)


async def test_a_connection_is_enough_for_tcp() -> None:
    async with Http1Agent().running() as agent:
        assert await probe(at(agent.port), TCP, no_tls) == ""
    assert "onnect" in await probe(at(free_port()), TCP, no_tls)


async def test_no_answer_in_time_is_a_failed_check() -> None:
    async with Http1Agent().running() as agent:
        agent.answer = b""
        assert await probe(at(agent.port), CheckSpec(timeout_s="100ms"), no_tls) == "no answer within 0.1 s"


async def test_over_mtls_the_agent_must_be_who_it_should_be(certs: Path, contexts: TlsContexts) -> None:
    async with Http1Agent().running(executor_tls(certs)) as agent:
        for check in (HTTP, TCP):
            assert await probe(at(agent.port, spiffe_id=EXECUTOR), check, contexts.client) == ""
        asked = len(agent.asked)
        told = await probe(at(agent.port, spiffe_id=CODER), HTTP, contexts.client)
        assert told == f"it shows {EXECUTOR}, not {CODER}"
        assert len(agent.asked) == asked


async def test_grpc_over_mtls(certs: Path, contexts: TlsContexts) -> None:
    with GrpcAgent().running(certs) as agent:
        assert await probe(at(agent.port, Protocol.H2, EXECUTOR), GRPC, contexts.client) == ""
        assert await probe(at(agent.port, Protocol.HTTP1, EXECUTOR), GRPC, contexts.client) == ""
        agent.status = NOT_SERVING
        assert "not serving" in await probe(at(agent.port, Protocol.H2, EXECUTOR), GRPC, contexts.client)


async def test_a_server_that_the_bundle_does_not_vouch_for_is_not_healthy(
    certs: Path, contexts: TlsContexts, tmp_path: Path
) -> None:
    issue_dev_certificates(
        tmp_path, trust_domain="mesh.local", svids={"executor": "/ns/agents/sa/executor"}, now=datetime.now(UTC)
    )
    async with Http1Agent().running(executor_tls(tmp_path)) as agent:
        assert "certificate verify failed" in await probe(at(agent.port, spiffe_id=EXECUTOR), HTTP, contexts.client)
    async with Http1Agent().running() as plain:
        assert await probe(at(plain.port, spiffe_id=EXECUTOR), CheckSpec(timeout_s="500ms"), contexts.client)


async def test_a_check_that_is_cancelled_leaves_no_connection() -> None:
    async with Http1Agent().running() as agent:
        agent.answer = b""
        asking = asyncio.create_task(probe(at(agent.port), HTTP, no_tls))
        await until(lambda: agent.asked)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: not agent.under_way)
