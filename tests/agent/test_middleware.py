"""An agent behind the middleware sees packets of the gateway, whole and signed, or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.agent import FlightAuth, FlightMiddleware
from gateway.agent.middleware import DigestMismatchError
from gateway.identity import SpiffeId
from gateway.packet.digest import content_digest
from gateway.packet.keys import Key, KeySet

PLANNER = SpiffeId("spiffe://mesh.local/ns/agents/sa/planner")
SECRET = bytes(range(32))
KEYS = KeySet(
    {
        "planner-1": Key("planner-1", PLANNER, SECRET),
        "coder-1": Key("coder-1", SpiffeId("spiffe://mesh.local/ns/agents/sa/coder"), bytes(32)),
    }
)
NOW = 1_900_000_000
FROM_GATEWAY = {"flight-from": f'"{PLANNER}"', "flight-id": '"id-1"', "flight-capability": "code.execute"}


class Agent:
    """An agent that remembers the bodies it took for whole."""

    def __init__(self, keys: KeySet | None = None) -> None:
        self.bodies: list[bytes] = []
        routes = [
            Route("/run", self._run, methods=["POST"]),
            WebSocketRoute("/ws", self._websocket),
        ]
        self.app = FlightMiddleware(Starlette(routes=routes), keys, clock=lambda: NOW)

    async def _run(self, request: Request) -> JSONResponse:
        arrival = request.scope["flight"]
        self.bodies.append(await request.body())
        packet = arrival.packet
        return JSONResponse(
            {
                "sender": arrival.sender,
                "id": packet.id,
                "capabilities": packet.capabilities.names,
                "conversation": packet.conversation,
                "task": packet.task,
                "keyid": arrival.signature and arrival.signature.keyid,
            }
        )

    async def _websocket(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(socket.scope["flight"].sender)
        await socket.close()

    async def post(self, *, body: Any = b"job", auth: httpx.Auth | None = None, **fields: str) -> httpx.Response:
        """Send a packet as the gateway would, with `fields` added, or taken away where they are empty."""
        changed = FROM_GATEWAY | {name.replace("_", "-"): value for name, value in fields.items()}
        headers = {name: value for name, value in changed.items() if value}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway", auth=auth) as client:
            return await client.post("/run", content=body, headers=headers)


def refused(response: httpx.Response, status: int, reason: str, told: str) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["type"]) == (status, f"urn:phoenixflight:{reason}")
    assert told in problem["detail"]


# -- packets ----------------------------------------------------------------------------------------------


async def test_the_handler_gets_a_typed_packet() -> None:
    answer = await Agent().post(flight_conversation='"c-1"', flight_task='"t-1"')
    assert answer.json() == {
        "sender": PLANNER,
        "id": "id-1",
        "capabilities": ["code.execute"],
        "conversation": "c-1",
        "task": "t-1",
        "keyid": None,
    }


@pytest.mark.parametrize(
    ("fields", "status", "reason", "told"),
    [
        ({"flight_from": ""}, 401, "identity-required", "flight-from is missing"),
        ({"flight_from": '"planner"'}, 400, "malformed-packet", "flight-from: "),
        ({"flight_id": ""}, 400, "malformed-packet", "flight-id is missing"),
        ({"flight_capability": ""}, 400, "malformed-packet", "flight-capability is missing"),
        ({"flight_conversation": "c"}, 400, "malformed-packet", "flight-conversation: "),
        ({"content_digest": "sha-256=1"}, 400, "malformed-packet", "content-digest: "),
    ],
)
async def test_what_is_no_packet_of_the_gateway_never_reaches_the_handler(
    fields: dict[str, str], status: int, reason: str, told: str
) -> None:
    agent = Agent()
    refused(await agent.post(**fields), status, reason, told)
    assert agent.bodies == []


async def test_a_grpc_caller_is_refused_in_its_own_way() -> None:
    answer = await Agent().post(flight_from="", content_type="application/grpc")
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "16")


def test_an_application_starts_and_stops_as_ever() -> None:
    with TestClient(Agent().app) as client:
        assert client.post("/run", headers=FROM_GATEWAY).status_code == 200


def test_websockets_are_packets_too() -> None:
    client = TestClient(Agent().app)
    with client.websocket_connect("/ws", headers=FROM_GATEWAY) as socket:
        assert socket.receive_text() == PLANNER
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws"):
        pass


# -- bodies -----------------------------------------------------------------------------------------------


async def pieces(*some: bytes) -> AsyncIterator[bytes]:
    for piece in some:
        yield piece


async def test_a_body_that_matches_its_digest_arrives_whole() -> None:
    agent = Agent()
    assert (await agent.post(body=pieces(b"jo", b"b"), content_digest=content_digest(b"job").decode())).is_success
    assert agent.bodies == [b"job"]


async def test_a_digest_that_cannot_be_checked_is_passed_over() -> None:
    agent = Agent()
    assert (await agent.post(content_digest="md5=:AAAA:")).is_success
    assert agent.bodies == [b"job"]


@pytest.mark.parametrize("body", [(b"jab",), (b"jo", b"b", b"!"), (b"jo",), ()])
async def test_a_tampered_body_is_never_taken_for_whole(body: tuple[bytes, ...]) -> None:
    agent = Agent()
    answer = await agent.post(body=pieces(*body), content_digest=content_digest(b"job").decode())
    refused(answer, 400, "malformed-packet", "content-digest: the body is not the one")
    assert agent.bodies == []


async def test_an_answer_that_is_under_way_breaks_off_when_the_body_proves_tampered() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})

    agent = Agent()
    agent.app = FlightMiddleware(echo)
    with pytest.raises(DigestMismatchError):
        await agent.post(body=pieces(b"jo", b"x"), content_digest=content_digest(b"job").decode())


async def test_an_applications_own_failure_is_its_own() -> None:
    async def fail(scope: object, receive: object, send: object) -> None:
        raise LookupError("a defect of the agent")

    agent = Agent()
    agent.app = FlightMiddleware(fail)
    with pytest.raises(LookupError):
        await agent.post(content_digest=content_digest(b"job").decode())


async def test_an_application_that_copes_with_a_caller_who_is_gone_cannot_answer_for_a_tampered_body() -> None:
    async def cope(scope: Any, receive: Any, send: Any) -> None:
        try:
            await Request(scope, receive).body()
        except ClientDisconnect:
            await PlainTextResponse("thanks")(scope, receive, send)

    agent = Agent()
    agent.app = FlightMiddleware(cope)
    answer = await agent.post(body=b"jab", content_digest=content_digest(b"job").decode())
    refused(answer, 400, "malformed-packet", "content-digest")


# -- signatures -------------------------------------------------------------------------------------------


def auth(key: bytes = SECRET, keyid: str = "planner-1") -> FlightAuth:
    return FlightAuth(key, keyid, clock=lambda: NOW)


async def test_a_signed_packet_arrives_with_its_signature() -> None:
    answer = await Agent(KEYS).post(auth=auth())
    assert (answer.status_code, answer.json()["keyid"]) == (200, "planner-1")


async def test_the_scheme_of_the_senders_url_counts_not_that_of_the_last_leg() -> None:
    agent = Agent(KEYS)
    transport = httpx.ASGITransport(lambda scope, receive, send: agent.app({**scope, "scheme": "http"}, receive, send))
    async with httpx.AsyncClient(transport=transport, auth=auth(), headers=FROM_GATEWAY) as client:
        assert (await client.post("https://gateway/run", content=b"job")).is_success


@pytest.mark.parametrize(
    ("signer", "told"),
    [
        (None, "signature: this agent takes signed packets only"),
        (auth(bytes(32)), "signature: not one of this key"),
        (auth(keyid="planner-2"), "keyid: no such key is known here"),
        (auth(bytes(32), "coder-1"), "keyid: the key is not one of the principal who sent the packet"),
        (FlightAuth(SECRET, "planner-1", clock=lambda: NOW - 400), "created: "),
    ],
)
async def test_an_agent_with_keys_takes_only_what_its_sender_signed(signer: FlightAuth | None, told: str) -> None:
    agent = Agent(KEYS)
    refused(await agent.post(auth=signer), 401, "signature-invalid", told)
    assert agent.bodies == []
