"""An agent hands work on in one call: what goes with it, what it may spend, what the next one has to know."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.agent import Arrival, ContextError, FlightMiddleware, NoTimeLeftError
from gateway.contexts import new_key
from gateway.packet import MalformedPacketError
from tests.conformance.test_http1 import OK
from tests.conformance.trust import AGENTS, policy, rule
from tests.conftest import RawAgent, StartGateway, client_context, member
from tests.waiting import eventually, free_port

PLANNER, CODER, EXECUTOR = (f"{AGENTS}/{name}" for name in ("planner", "coder", "executor"))
FROM_GATEWAY = {"flight-from": f'"{PLANNER}"', "flight-id": '"id-1"', "flight-capability": "code.execute"}
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1"}
PLAN = b"the plan, and what was said about it"


def token(**claims: Any) -> str:
    """A credential as far as an agent reads it."""
    said = {"jti": "j-1", "txn": "root-1", "exp": 2_000_000_000, "cap": ["code.*"], "bud": {"hops": 3}, **claims}
    payload = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


# -- what arrives, and what goes on -------------------------------------------------------------------------


def test_an_arrival_says_whose_work_it_is_and_what_is_left_of_it() -> None:
    arrival = Arrival.received(
        {
            **FROM_GATEWAY,
            "Flight-Lineage": f'"{CODER}", "{PLANNER}"',
            "flight-conversation": '"c-1"',
            "flight-budget": "tokens=500, hops=3",
            "flight-credential": token(),
        }
    )
    assert (arrival.sender, arrival.lineage) == (PLANNER, (CODER, PLANNER))
    assert (arrival.conversation, arrival.root) == ("c-1", "root-1")
    assert arrival.budget == {"tokens": 500, "hops": 3}
    assert arrival.held is not None
    assert (arrival.held.id, arrival.held.capabilities, arrival.held.budget) == ("j-1", ("code.*",), {"hops": 3})
    assert arrival.time_left_s is None


def test_without_a_grant_there_is_nothing_held_and_the_work_begins_here() -> None:
    arrival = Arrival.received({**FROM_GATEWAY, "flight-budget": "hops=2"})
    assert (arrival.held, arrival.lineage, arrival.root) == (None, (), "id-1")
    # Nothing else would tell the next agent of the bounds.
    assert arrival.headers("code.review")["flight-budget"] == "hops=2"
    assert arrival.headers("code.review", budget={"tokens": 9})["flight-budget"] == "hops=2, tokens=9"


def test_what_is_handed_on_is_the_same_conversation_task_and_trace_with_this_packet_as_its_parent() -> None:
    given = {"flight-conversation": '"c \\"1\\""', "flight-task": '"t"', "flight-credential": token(), **TRACE}
    context = {"flight-context": "sha-256=:yG/WBWKmJDkxIylgJWt4lNlHRrm2LPbyjlJAa6Rp+M8=:"}
    headers = Arrival.received({**FROM_GATEWAY, **given, **context, "flight-budget": "tokens=9"}).headers("code.review")
    assert headers == {"flight-capability": "code.review", "flight-parent": '"id-1"', **given, **context}


def test_a_part_of_the_budget_is_named_or_all_that_is_left_goes_on() -> None:
    arrival = Arrival.received({**FROM_GATEWAY, "flight-budget": "tokens=500", "flight-credential": token()})
    assert "flight-budget" not in arrival.headers("code.review")
    assert arrival.headers("code.review", budget={"tokens": 200, "cost": 3})["flight-budget"] == "tokens=200, cost=3"


async def test_what_is_left_of_the_time_goes_on_until_nothing_is() -> None:
    now = [100.0]
    seen: list[Arrival] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["flight"])
        await JSONResponse({})(scope, receive, send)

    transport = httpx.ASGITransport(FlightMiddleware(app, monotonic=lambda: now[0]))
    async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
        await client.post("/run", headers={**FROM_GATEWAY, "flight-timeout": "2000"})
    (arrival,) = seen
    now[0] = 101.5
    assert arrival.headers("code.review")["flight-timeout"] == "500"
    now[0] = 102.0
    with pytest.raises(NoTimeLeftError):
        arrival.headers("code.review")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flight-credential", "e30.e30.c2ln"),
        ("flight-credential", "not a token"),
        ("flight-lineage", '"planner"'),
        ("flight-lineage", "("),
        ("flight-context", "("),
    ],
)
def test_what_no_gateway_would_send_is_malformed(field: str, value: str) -> None:
    with pytest.raises(MalformedPacketError, match=f"^{field}: "):
        Arrival.received({**FROM_GATEWAY, field: value})


def test_usage_is_written_as_the_gateway_reads_it() -> None:
    arrival = Arrival.received(FROM_GATEWAY)
    assert arrival.usage(tokens=812, cost=3) == {"flight-usage": "tokens=812, cost=3"}
    with pytest.raises(ValueError, match="tokens=-1"):
        arrival.usage(tokens=-1)


async def test_a_context_that_is_not_the_one_that_was_asked_for_is_not_given() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"something else"))
    async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
        onward = Arrival.received({**FROM_GATEWAY, "flight-conversation": '"c"'}).onward(client)
        with pytest.raises(ContextError, match="what came is not the context 0000"):
            await onward.fetch_context("0" * 64)
        with pytest.raises(ContextError, match="the packet refers to no context"):
            await onward.fetch_context()


# -- through a gateway --------------------------------------------------------------------------------------


@contextmanager
def coder(certs: Path, gateway: Callable[[], str], port: int) -> Iterator[None]:
    """An agent that stores what the next one has to know, and hands the work on."""
    uvicorn = pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'phoenixflight-gateway[demo]'")

    async def write(request: Request) -> JSONResponse:
        arrival: Arrival = request.scope["flight"]
        async with httpx.AsyncClient(base_url=gateway(), verify=client_context(certs, "coder")) as client:
            onward = arrival.onward(client)
            digest = await onward.store_context(PLAN)
            done = await onward.post("code.execute", "/run", budget={"tokens": 300}, context=digest)
            async with onward.stream("code.execute", "/run", budget={"tokens": 100}) as streamed:
                await streamed.aread()
        return JSONResponse([done.status_code, streamed.status_code], headers=arrival.usage(tokens=5))

    app = FlightMiddleware(Starlette(routes=[Route("/run", write, methods=["POST"])]))
    tls = {"ssl_certfile": certs / "coder.pem", "ssl_keyfile": str(certs / "coder-key.pem")}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", **tls))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield
    server.should_exit = True
    thread.join()


def serve_executor(certs: Path) -> Callable[[RawAgent, Any], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "executor.pem", certs / "executor-key.pem")

    def serve(agent: RawAgent, connection: Any) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            while True:
                agent.read_head(secure)
                secure.sendall(OK)

    return serve


def packet_of(head: bytes) -> Arrival:
    lines = head.decode().split("\r\n")[1:]
    return Arrival.received(dict(line.split(": ", 1) for line in lines if line))


async def test_work_goes_from_agent_to_agent_with_its_context_under_one_credential_after_another(
    start_gateway: StartGateway,
    raw_agent: Callable[[Callable[[RawAgent, Any], None]], RawAgent],
    certs: Path,
    tmp_path: Path,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority, kept = tmp_path / "authority.pem", tmp_path / "context-key"
    authority.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    kept.write_text(new_key())
    executor, port = raw_agent(serve_executor(certs)), free_port()
    gateway = start_gateway(
        [
            member(port, "coder-1", capabilities=["code.write"], spiffeId=CODER),
            member(executor.port, "executor-1", spiffeId=EXECUTOR),
        ],
        policy=policy(
            rule("planners", callers="planner", grant={"capabilities": ["code.*"], "budget": {"tokens": 900}}),
            rule("coders", callers="coder", grant={"capabilities": ["code.*"]}),
        ),
        authority={"keys": [str(authority)]},
        contexts={"folder": str(tmp_path / "kept"), "keys": [str(kept)]},
    )
    with coder(certs, lambda: gateway.url, port), gateway.client("planner") as planner:
        asked = {"flight-capability": "code.write", "flight-id": '"root-1"', "flight-conversation": '"c-1"'}
        began = time.monotonic()
        answer = planner.post("/run", headers={**asked, "flight-timeout": "30000"})
        took_ms = (time.monotonic() - began) * 1000
    assert (answer.status_code, answer.json()) == (200, [200, 200]), answer.text

    first, second = (packet_of(head) for head in executor.received)
    assert (first.lineage, first.root, first.conversation) == ((PLANNER, CODER), "root-1", "c-1")
    assert (first.packet.parent, first.budget["tokens"], second.budget["tokens"]) == ("root-1", 300, 100)
    assert 30_000 - took_ms - 1 <= first.packet.timeout_ms < 30_000
    assert gateway.handoff(agent="coder-1")["usage"] == "tokens=5"

    async with httpx.AsyncClient(base_url=gateway.url, verify=client_context(certs, "executor")) as client:
        onward = first.onward(client)
        assert await onward.fetch_context() == PLAN
        with pytest.raises(ContextError) as unknown:
            await onward.fetch_context("0" * 64)
        assert unknown.value.status == 404
        with pytest.raises(ContextError) as refused:
            await onward.store_context(bytes(9_000_000))
        assert refused.value.status == 413
