"""A conversation leaves a draining agent, and what that one knows of it goes along."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import h2.events
import pytest

from gateway.packet.digest import content_digest
from gateway.proxy.migration import MAX_CONTEXT_BYTES
from tests.conformance.test_http2 import Peer
from tests.conftest import RawAgent, RunningGateway, StartGateway, launch, member, write_agents
from tests.redis_server import RedisServer
from tests.waiting import eventually

CONTEXT = b'{"turns": ["\xc3\xa9"]}'
LARGE = b"x" * (MAX_CONTEXT_BYTES + 1)
MISS = content_digest(b"another").decode()


def given(body: bytes = CONTEXT, digest: str | None = None, status: str = "200 OK") -> bytes:
    """An answer with a context."""
    digest = content_digest(body).decode() if digest is None else digest
    field = f"content-digest: {digest}\r\n" if digest else ""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{field}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


ANSWERS = {
    "carried": given(),
    "empty": given(b""),
    "largest": given(LARGE[1:]),
    "nothing": given(b"", status="404 Not Found"),
    "refusing": given(status="500 Internal Server Error"),
    "large": given(LARGE),
    "slow": b"",
    "other": given(digest=MISS),
    "unsigned": given(digest=""),
    "unknown": given(digest="sha=:AAAA:"),
    "unreadable": given(digest="sha-256=abc"),
    "refused": given(),
    "waited": given(),
    "open": given(),
    "staying": given(),
}
"""What the agent that drains says of each conversation."""


class Seen(NamedTuple):
    """A request that an agent got."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytes


class ContextAgent:
    """An agent that gives contexts and takes them, each conversation in its own way."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.asked = threading.Event()
        """For the context of `waited`."""
        self.let = threading.Event()
        """Give it."""
        self.raw = RawAgent(self._serve)

    def of(self, conversation: str) -> list[Seen]:
        """What came of one conversation."""
        return [each for each in self.seen if each.fields["flight-conversation"] == f'"{conversation}"']

    def _serve(self, agent: RawAgent, connection: socket.socket) -> None:
        while True:
            data = agent.read_head(connection)
            head, _, body = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            method, path, _ = first.split(" ")
            fields = dict(line.split(": ", 1) for line in lines)
            while len(body) < int(fields.get("content-length", 0)):
                body += connection.recv(65536)
            self.seen.append(Seen(method, path, fields, body))
            self._answer(connection, method, path, fields["flight-conversation"].strip('"').partition("-")[0])

    def _answer(self, connection: socket.socket, method: str, path: str, way: str) -> None:
        if path == "/stream":
            connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
        elif path == "/context" and method == "GET":
            if way == "waited":
                self.asked.set()
                assert self.let.wait(10)
            connection.sendall(ANSWERS[way])
        else:
            status = b"507 Insufficient Storage" if method == "PUT" and way == "refused" else b"200 OK"
            connection.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")


class Mesh(NamedTuple):
    """A gateway with two agents that can hand over, and one that cannot; the first of them drains."""

    gateway: RunningGateway
    old: ContextAgent
    new: ContextAgent
    conversations: dict[str, str]
    """One that is at `old` for each of ANSWERS."""


def packet(gateway: RunningGateway, conversation: str, **fields: str) -> str:
    """Send one; gives the agent that answered."""
    with gateway.client() as client:
        answer = client.get("/run", headers=headers(conversation, **fields))
    assert answer.is_success
    return answer.headers["flight-agent"].strip('"')


def outcomes(gateway: RunningGateway) -> dict[str, int]:
    """How many migrations came to what."""
    found = re.findall(r'migrations_total\{outcome="(.+)"\} (\d+)', gateway.admin("/metrics").text)
    return {name: int(count) for name, count in found}


def headers(conversation: str, capability: str = "code.execute") -> dict[str, str]:
    return {"flight-capability": capability, "flight-conversation": f'"{conversation}"'}


def at_old(gateway: RunningGateway, way: str, **fields: str) -> str:
    """A conversation that has begun at `old`."""
    for number in range(100):
        if packet(gateway, f"{way}-{number}", **fields) == "old":
            return f"{way}-{number}"
    raise AssertionError("none begins there")


def members(mesh: Mesh, state: str) -> list[dict[str, Any]]:
    first, second = mesh.old.raw.port, mesh.new.raw.port
    both = ["code.execute", "code.review"]
    return [
        member(first, "old", capabilities=both, state=state, contextPath="/context"),
        member(second, "new", contextPath="/context"),
        member(second, "plain", capabilities=["code.review"]),
    ]


@pytest.fixture(scope="module", params=["memory", "redis"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Where leases are kept, as the Gateway document says it."""
    if request.param == "memory":
        yield {}
        return
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield {"redis": {"url": server.url}}
    server.stop()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, certs: Path, store: dict[str, Any]) -> Iterator[Mesh]:
    old, new = ContextAgent(), ContextAgent()
    folder = tmp_path_factory.mktemp("gateway")
    gateway = launch(
        folder, certs, [member(old.raw.port, "old", capabilities=["code.execute", "code.review"])], **store
    )
    mesh = Mesh(gateway, old, new, {})
    write_agents(folder, members(mesh, "ready"))
    eventually(lambda: len(gateway.admin("/snapshot").json()["agents"]) == 3)
    mesh.conversations.update({way: at_old(gateway, way) for way in ANSWERS if way != "staying"})
    mesh.conversations["staying"] = at_old(gateway, "staying", capability="code.review")
    with (
        gateway.client() as client,
        client.stream("GET", "/stream", headers=headers(mesh.conversations["open"])) as stream,
    ):
        pieces = stream.iter_raw()
        assert next(pieces) == b"ok"
        write_agents(folder, members(mesh, "draining"))
        eventually(lambda: "draining" in gateway.admin("/snapshot").text)
        assert packet(gateway, mesh.conversations["open"]) == "old", "a stream of it is open there"
        assert not any(each.path == "/context" for each in old.seen)
    yield mesh
    gateway.stop()
    old.raw.close()
    new.raw.close()


@pytest.mark.parametrize(
    ("way", "outcome", "context"),
    [
        ("carried", "carried", CONTEXT),
        ("empty", "carried", b""),
        ("largest", "carried", LARGE[1:]),
        ("open", "carried", CONTEXT),
        ("refused", "not-taken", CONTEXT),
        ("nothing", "nothing", None),
        ("refusing", "not-given", None),
        ("large", "not-given", None),
        ("slow", "not-given", None),
        ("other", "mismatch", None),
        ("unsigned", "mismatch", None),
        ("unknown", "mismatch", None),
        ("unreadable", "mismatch", None),
    ],
)
def test_the_next_packet_moves_a_conversation_with_its_context_or_without(
    mesh: Mesh, way: str, outcome: str, context: bytes | None
) -> None:
    conversation, before = mesh.conversations[way], outcomes(mesh.gateway)
    assert packet(mesh.gateway, conversation) == "new"
    assert outcomes(mesh.gateway) == {**before, outcome: before[outcome] + 1}
    asked = mesh.old.of(conversation)[-1]
    assert (asked.method, asked.path) == ("GET", "/context")
    assert asked.fields["flight-capability"] == "code.execute"
    assert "flight-from" not in asked.fields
    *taken, last = mesh.new.of(conversation)
    assert last.path == "/run"
    assert [each.body for each in taken] == ([] if context is None else [context])
    for each in taken:
        assert (each.method, each.path, each.fields["content-type"]) == ("PUT", "/context", "application/json")
        assert each.fields["content-digest"] == content_digest(each.body).decode()
    assert packet(mesh.gateway, conversation) == "new"
    assert outcomes(mesh.gateway) == {**before, outcome: before[outcome] + 1}, "it is carried over once"


def test_packets_that_come_meanwhile_reach_the_new_agent_after_the_context(mesh: Mesh) -> None:
    conversation = mesh.conversations["waited"]
    with ThreadPoolExecutor(2) as senders:
        first = senders.submit(packet, mesh.gateway, conversation)
        assert mesh.old.asked.wait(10)
        second = senders.submit(packet, mesh.gateway, conversation)
        eventually(lambda: "phoenixflight_handoffs_in_flight 2" in mesh.gateway.admin("/metrics").text)
        assert not mesh.new.of(conversation)
        mesh.old.let.set()
        assert (first.result(), second.result()) == ("new", "new")
    assert [each.method for each in mesh.new.of(conversation)] == ["PUT", "GET", "GET"]


def test_a_live_conversation_stays_while_no_agent_could_take_its_context(mesh: Mesh) -> None:
    before = outcomes(mesh.gateway)
    assert packet(mesh.gateway, mesh.conversations["staying"], capability="code.review") == "old"
    assert outcomes(mesh.gateway) == before


def test_the_largest_context_comes_and_goes_over_http2(raw_agent, start_gateway: StartGateway) -> None:
    contexts: list[bytes] = []

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        peer = Peer(connection, client=False)
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}

        def give(stream: int, context: bytes) -> None:
            digest = content_digest(context).decode()
            peer.h2.send_headers(stream, [(":status", "200"), ("content-digest", digest)])
            while context:
                size = min(peer.h2.local_flow_control_window(stream), peer.h2.max_outbound_frame_size, len(context))
                if not size:
                    peer.event(h2.events.WindowUpdated)
                    continue
                peer.h2.send_data(stream, context[:size], end_stream=size == len(context))
                peer.flush()
                context = context[size:]

        while True:
            event = peer.until(lambda _: True)
            if isinstance(event, h2.events.RequestReceived):
                heads[event.stream_id] = dict(event.headers)
                bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] += event.data
                peer.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                peer.flush()
            elif isinstance(event, h2.events.StreamEnded):
                stream = event.stream_id
                asked = heads[stream][":method"], heads[stream][":path"]
                if asked == ("GET", "/context"):
                    give(stream, LARGE[1:])
                    continue
                if asked == ("PUT", "/context"):
                    contexts.append(bodies[stream])
                peer.h2.send_headers(stream, [(":status", "204")], end_stream=True)
                peer.flush()

    ports = {name: raw_agent(serve).port for name in ("old", "new")}

    def agents(state: str) -> list[dict[str, Any]]:
        both = [member(ports[name], name, protocol="h2c", contextPath="/context") for name in ports]
        return [{**both[0], "state": state}, both[1]]

    gateway = start_gateway(agents("ready"))
    conversation = at_old(gateway, "largest")
    write_agents(gateway.folder, agents("draining"))
    eventually(lambda: "draining" in gateway.admin("/snapshot").text)
    assert packet(gateway, conversation) == "new"
    assert outcomes(gateway)["carried"] == 1
    assert contexts == [LARGE[1:]]
