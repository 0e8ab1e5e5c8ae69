"""Capabilities from agents' cards, over real sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypercorn
import hypercorn.asyncio
import pytest
from a2a.server.routes import create_agent_card_routes
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.control.config import Identity
from gateway.control.tls import TlsContexts
from gateway.identity import SpiffeId
from gateway.membership.cards import PATH, CardError, CardReader, capabilities_of, with_cards
from gateway.membership.file import is_capability
from gateway.routing import Agent, Protocol
from tests.conftest import free_port
from tests.membership.registering import BODY, EXECUTOR, registering, soon

Context = Callable[[Agent], ssl.SSLContext]


def a2a_card(*skills: str) -> AgentCard:
    return AgentCard(
        name="Coder",
        description="Writes code.",
        version="1.0",
        supported_interfaces=[AgentInterface(url="https://x/a2a", protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id=skill, name=skill, description="…", tags=["lang.python"]) for skill in skills],
    )


@asynccontextmanager
async def serving(app: Starlette, port: int, certs: Path | None = None, *, h2: bool = False) -> AsyncIterator[None]:
    """Serve `app`, with the executor's certificate where there are `certs`."""
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "ERROR"
    if certs is not None:
        config.alpn_protocols = ["h2" if h2 else "http/1.1"]
        config.certfile = str(certs / "executor.pem")
        config.keyfile = str(certs / "executor-key.pem")
        config.ca_certs = str(certs / "ca.pem")
        config.verify_mode = ssl.CERT_REQUIRED
    stop, started = asyncio.Event(), asyncio.Event()

    async def shutdown() -> None:
        started.set()  # the sockets are open by the time that it is waited for the end
        await stop.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=shutdown))  # type: ignore[arg-type]
        await started.wait()
        try:
            yield
        finally:
            stop.set()


@pytest.fixture
def context(certs: Path) -> Context:
    identity = Identity(certificate=certs / "gateway.pem", key=certs / "gateway-key.pem", trust_bundle=certs / "ca.pem")
    return lambda agent: TlsContexts(identity, None).client(agent)


@asynccontextmanager
async def reading(context: Context, *agents: Agent, **options: Any) -> AsyncIterator[CardReader]:
    reader = CardReader(context, lambda: None, **{"first_retry_s": 0.02, "max_retry_s": 0.05, **options})
    reader.follow(agents)
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def answering(answer: Callable[[Request], Response]) -> Starlette:
    return Starlette(routes=[Route(PATH, answer)])


def agent(port: int, **changes: Any) -> Agent:
    return replace(Agent("coder", "127.0.0.1", port, frozenset()), **changes)


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_skills_of_an_a2a_agent_are_its_capabilities(certs: Path, context: Context, protocol: Protocol) -> None:
    port = free_port()
    app = Starlette(routes=create_agent_card_routes(a2a_card("code.write", "code.review", "Write code!", "7th")))
    spiffe_id = None if protocol is Protocol.H2C else SpiffeId(EXECUTOR)
    async with (
        serving(app, port, None if protocol is Protocol.H2C else certs, h2=protocol is Protocol.H2),
        reading(context, agent(port, protocol=protocol, spiffe_id=spiffe_id)) as reader,
    ):
        await soon(lambda: reader.capabilities or reader.problems)
        assert reader.problems == {}
        assert reader.capabilities == {"coder": {"code.write", "code.review"}}


async def test_another_at_the_agents_address_is_not_believed(certs: Path, context: Context) -> None:
    port = free_port()
    app = Starlette(routes=create_agent_card_routes(a2a_card("code.write")))
    async with (
        serving(app, port, certs),
        reading(context, agent(port, spiffe_id=SpiffeId("spiffe://mesh.local/ns/agents/sa/coder"))) as reader,
    ):
        await soon(lambda: reader.problems)
        assert f"shows {EXECUTOR}" in reader.problems["coder"]
        assert reader.capabilities == {}


async def test_a_card_is_read_again_and_the_last_good_one_counts(context: Context) -> None:
    port = free_port()
    body = ['{"skills": [{"id": "a"}]}']
    async with (
        serving(answering(lambda _: Response(body[0])), port),
        reading(context, agent(port), refresh_s=0.02) as reader,
    ):
        await soon(lambda: reader.capabilities == {"coder": {"a"}})
        body[0] = '{"skills": [{"id": "b"}]}'
        await soon(lambda: reader.capabilities == {"coder": {"b"}})
        body[0] = "<html>"
        await soon(lambda: reader.problems)
        assert "the agent card cannot be read" in reader.problems["coder"]
        assert reader.capabilities == {"coder": {"b"}}
        assert reader.status()["problems"] == reader.problems
        body[0] = '{"skills": [{"id": "c"}]}'
        await soon(lambda: reader.capabilities == {"coder": {"c"}})
        assert reader.problems == {}
        body[0] = '{"skills": [{"id": "no capability"}]}'
        await soon(lambda: reader.problems)
        assert "no skill whose id can be a capability" in reader.problems["coder"]
        assert reader.capabilities == {"coder": frozenset()}


async def test_an_agent_that_is_not_there_yet_is_asked_again(context: Context) -> None:
    port = free_port()
    async with reading(context, agent(port)) as reader:
        await soon(lambda: reader.problems)
        assert "could not be fetched" in reader.problems["coder"]
        async with serving(answering(lambda _: Response('{"skills": [{"id": "a"}]}')), port):
            await soon(lambda: reader.capabilities)
            assert reader.problems == {}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _: Response(" " * 300_000), "larger than 262144 bytes"),
        (lambda _: Response("{}", status_code=404), "answered 404"),
        (lambda _: RedirectResponse("http://127.0.0.1:1/"), "answered 307"),
        (lambda _: Response("{}", headers={"content-encoding": "gzip"}), "compressed"),
        (lambda _: Response('{"skills": [{"name": "x"}]}'), "cannot be read"),
        (lambda _: Response("[" * 100_000), "cannot be read"),
    ],
)
async def test_what_is_no_card_is_a_problem(context: Context, answer: Callable[[Request], Response], told: str) -> None:
    port = free_port()
    async with serving(answering(answer), port), reading(context, agent(port)) as reader:
        await soon(lambda: reader.problems)
        assert told in reader.problems["coder"]


async def test_an_agent_that_does_not_answer_costs_the_timeout(context: Context) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, reading(context, agent(port), timeout_s=0.05) as reader:
        await soon(lambda: reader.problems)
        assert "did not come within 0.05 s" in reader.problems["coder"]


async def test_what_is_followed_no_more_or_has_moved_is_forgotten_at_once(context: Context) -> None:
    port = free_port()
    async with (
        serving(answering(lambda _: Response('{"skills": [{"id": "a"}]}')), port),
        reading(context, agent(port), replace(agent(port), name="other")) as reader,
    ):
        await soon(lambda: len(reader.capabilities) == 2)
        reader.follow([agent(free_port())])
        assert reader.capabilities == {}
        await soon(lambda: reader.problems)
        reader.follow([agent(port)])
        assert reader.problems == {}
        await soon(lambda: reader.capabilities == {"coder": {"a"}})


def test_members_have_what_the_list_and_the_card_name_and_nobody_without_either() -> None:
    listed = [agent(1), replace(agent(2), name="both", capabilities=frozenset({"x"})), replace(agent(3), name="none")]
    members = with_cards(listed, frozenset({"coder", "both"}), {"coder": frozenset("a"), "both": frozenset("b")})
    assert {name: each.capabilities for name, each in members.items()} == {"coder": {"a"}, "both": {"x", "b"}}
    assert with_cards([agent(1)], frozenset({"coder"}), {}) == {}


@given(st.binary(max_size=64) | st.sampled_from(["{}", "[]", "1", '{"skills": 1}', '{"skills": [1]}']).map(str.encode))
def test_whatever_an_agent_sends_is_a_card_or_an_error(card: bytes) -> None:
    with suppress(CardError):
        capabilities_of(card)


@given(st.lists(st.text() | st.sampled_from(["code.write", "a/b"])))
def test_only_ids_that_can_be_capabilities_count(ids: list[str]) -> None:
    card = json.dumps({"skills": [{"id": each, "tags": ["code.pay"]} for each in ids]}).encode()
    assert capabilities_of(card) == {each for each in ids if is_capability(each)}


async def test_a_registration_has_what_its_card_names_and_its_rule_allows(certs: Path) -> None:
    port = free_port()
    card = Starlette(routes=create_agent_card_routes(a2a_card("code.write", "pay")))
    body = {**BODY, "address": f"127.0.0.1:{port}", "capabilities": [], "agentCard": True}
    async with registering(certs) as gateway, gateway.client() as client:
        assert (await client.put("/members/executor-1", json=body)).status_code == 201
        await soon(lambda: gateway.source.problems)
        assert not gateway.source.agents, "without its card it is no member yet"
        async with serving(card, port, certs):
            await soon(lambda: gateway.source.agents)
        assert gateway.source.agents["executor-1"].capabilities == {"code.write"}
        assert gateway.source.problems == {}
        await client.delete("/members/executor-1?drain=0s")
        assert not gateway.source.agents


async def test_a_failure_that_nobody_foresaw_costs_one_card() -> None:
    def fail(_: Agent) -> ssl.SSLContext:
        raise RuntimeError("a defect")

    port = free_port()
    odd = replace(agent(1), name="odd", spiffe_id=SpiffeId(EXECUTOR))
    async with (
        serving(answering(lambda _: Response('{"skills": [{"id": "a"}]}')), port),
        reading(fail, odd, agent(port)) as reader,
    ):
        await soon(lambda: reader.problems and reader.capabilities)
        assert reader.problems == {"odd": "the gateway failed to read the agent card: RuntimeError"}
        assert reader.capabilities == {"coder": {"a"}}
