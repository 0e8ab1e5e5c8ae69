"""Members come, drain, fail and are refused, while a gateway serves; and what is told of it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.test_http1 import OK, answer_each
from tests.conftest import (
    CAPABILITY,
    RawAgent,
    RunningGateway,
    StartGateway,
    member,
    write_agents,
    write_policy,
)
from tests.fleet import numbers
from tests.waiting import eventually

MakeAgent = Callable[[Callable[[RawAgent, socket.socket], None]], RawAgent]
NAMES = ("alpha", "beta")
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n6\r\ndata: \r\n"
RULE = {
    "name": "executors",
    "from": ["spiffe://mesh.local/ns/agents/sa/executor", "spiffe://mesh.local/ns/agents/sa/coder"],
    "names": ["executor-*"],
    "capabilities": ["code.*"],
    "addresses": ["127.0.0.0/8"],
    "maxTrust": 0.9,
}


def conversing(name: str) -> dict[str, str]:
    return {**CAPABILITY, "flight-conversation": f'"{name}"'}


def states(gateway: RunningGateway) -> dict[str, str]:
    return {agent["name"]: agent["state"] for agent in gateway.admin("/snapshot").json()["agents"]}


def metric(gateway: RunningGateway, name: str) -> dict[str, float]:
    return numbers(gateway.admin("/metrics").text, f"phoenixflight_{name}")


class Two:
    """Two agents of a file, which answer each packet, and hold a stream open until `finish`."""

    def __init__(self, make: MakeAgent, start: StartGateway, **spec: Any) -> None:
        self.finish = threading.Event()
        self._ports = {name: make(self._serve).port for name in NAMES}
        self.gateway = start([member(port, name) for name, port in self._ports.items()], **spec)
        self.client = self.gateway.client()

    def _serve(self, agent: RawAgent, connection: socket.socket) -> None:
        while True:
            if b" /events " not in agent.read_head(connection):
                connection.sendall(OK)
                continue
            connection.sendall(STREAM)
            assert self.finish.wait(20)
            connection.sendall(b"4\r\nend\n\r\n0\r\n\r\n")

    def set(self, **wanted: str) -> None:
        """Write the states of agents into the file, and wait until they are in force."""
        state = {name: wanted.get(name, "ready") for name in NAMES}
        write_agents(self.gateway.folder, [member(self._ports[name], name, state=state[name]) for name in NAMES])
        eventually(lambda: states(self.gateway) == state)

    def answer(self, conversation: str = "") -> httpx.Response:
        return self.client.post("/run", headers=conversing(conversation) if conversation else CAPABILITY)

    def place(self, conversation: str = "") -> str:
        """Which agent serves a packet."""
        answer = self.answer(conversation)
        assert answer.status_code == 200, answer.text
        return answer.headers["flight-agent"].strip('"')

    def begin_at(self, name: str) -> str:
        """A conversation that has begun at the agent `name`."""
        return next(each for each in (f"at-{name}-{number}" for number in range(50)) if self.place(each) == name)


@pytest.fixture
def two(raw_agent: MakeAgent, start_gateway: StartGateway) -> Any:
    made = Two(raw_agent, start_gateway)
    yield made
    made.finish.set()
    made.client.close()


def test_an_agent_that_the_file_sets_draining_keeps_what_it_has(two: Two) -> None:
    here = two.begin_at("alpha")
    with two.client.stream("GET", "/events", headers=conversing(here)) as stream:
        pieces = stream.iter_raw()
        assert next(pieces) == b"data: "
        two.set(alpha="draining")
        assert {two.place(here) for _ in range(5)} == {"alpha"}
        meanwhile = [f"meanwhile-{number}" for number in range(20)]
        assert {two.place(each) for each in meanwhile} == {"beta"}
        assert {two.place() for _ in range(20)} == {"beta"}
        two.set()
        assert two.place(here) == "alpha"
        assert {two.place(each) for each in meanwhile} == {"beta"}, "what has begun there stays there"
        assert {two.place(f"later-{number}") for number in range(20)} == {"alpha", "beta"}
        two.finish.set()
        assert b"".join(pieces) == b"end\n"
    fates = metric(two.gateway, "conversation_packets_total")
    assert fates['fate="kept"'] >= 5
    assert fates['fate="moved"'] == fates['fate="forced"'] == 0


@pytest.mark.parametrize("with_redis", [False, True], ids=["alone", "redis"])
def test_where_all_agents_drain_only_what_has_begun_goes_on(
    raw_agent: MakeAgent, start_gateway: StartGateway, request: pytest.FixtureRequest, with_redis: bool
) -> None:
    shared = {"redis": {"url": request.getfixturevalue("redis").url}} if with_redis else {}
    two = Two(raw_agent, start_gateway, **shared)
    conversations = {name: two.begin_at(name) for name in NAMES}
    two.set(alpha="draining", beta="draining")
    for _ in range(3):
        assert {name: two.place(each) for name, each in conversations.items()} == {name: name for name in NAMES}
        for refused in (two.answer("a-new-one"), two.answer()):
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:phoenixflight:no-eligible-agent")
            assert refused.headers["retry-after"] == "1"
    two.set(beta="draining")
    assert {name: two.place(each) for name, each in conversations.items()} == {name: name for name in NAMES}
    assert two.place("a-new-one") == two.place() == "alpha"


def serve_tls(certs: Path, name: str) -> Callable[[RawAgent, socket.socket], None]:
    """Answer each request over TLS, with the certificate of `name`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs / "ca.pem")
    context.load_cert_chain(certs / f"{name}.pem", certs / f"{name}-key.pem")

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as over_tls:
            answer_each(agent, over_tls)

    return serve


@pytest.fixture
def open_gateway(raw_agent: MakeAgent, start_gateway: StartGateway) -> RunningGateway:
    """A gateway with one agent in its file, on which others may register."""
    gateway = start_gateway([member(raw_agent(answer_each).port, "listed")])
    before = gateway.revision()
    document = {"apiVersion": "phoenixflight.io/v1", "kind": "MembershipPolicy", "metadata": {"name": "executors"}}
    write_policy(gateway.folder, "members", {**document, "spec": {"rules": [RULE]}})
    eventually(lambda: gateway.revision() != before)
    return gateway


BAD = {
    "an address that is none": ("executor-9", {"address": "nowhere"}, 400, "malformed-registration", "address"),
    "an address of somebody else": (
        "executor-9",
        {"address": "10.9.9.9:80"},
        403,
        "registration-denied",
        "10.9.9.9",
    ),
    "trust beyond one": ("executor-9", {"trust": 1.5}, 400, "malformed-registration", "trust"),
    "more trust than is allowed": ("executor-9", {"trust": 0.95}, 403, "registration-denied", "trust"),
    "an identity of its own choice": (
        "executor-9",
        {"spiffeId": "spiffe://mesh.local/ns/agents/sa/planner"},
        400,
        "malformed-registration",
        "spiffeId",
    ),
    "a name that another has": ("executor-2", {}, 409, "name-taken", "another principal"),
    "a name that the rules do not give": ("planner-1", {}, 403, "registration-denied", "planner-1"),
}


def test_a_bad_member_is_refused_by_name_and_all_others_serve_on(
    open_gateway: RunningGateway, raw_agent: MakeAgent, certs: Path
) -> None:
    agent = raw_agent(serve_tls(certs, "executor"))
    body = {"address": f"127.0.0.1:{agent.port}", "capabilities": ["code.execute"]}
    with open_gateway.client("executor") as executor, open_gateway.client("coder") as coder:
        assert executor.put("/members/executor-2", json=body).status_code == 201
        eventually(lambda: set(states(open_gateway)) == {"listed", "executor-2"})
        for why, (name, changes, status, reason, word) in BAD.items():
            answer = coder.put(f"/members/{name}", json={**body, **changes})
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert (problem["status"], problem["type"]) == (status, f"urn:phoenixflight:{reason}"), why
            assert word in problem["detail"], why
    with open_gateway.client() as planner:
        answers = [planner.post("/run", headers=CAPABILITY) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["flight-agent"] for answer in answers} == {'"listed"', '"executor-2"'}
    outcomes = metric(open_gateway, "registrations_total")
    assert outcomes == {
        'method="PUT",outcome="created"': 1,
        'method="PUT",outcome="malformed-registration"': 3,
        'method="PUT",outcome="registration-denied"': 3,
        'method="PUT",outcome="name-taken"': 1,
    }


def test_of_two_members_with_one_name_the_files_serves(
    open_gateway: RunningGateway, raw_agent: MakeAgent, certs: Path
) -> None:
    registered, listed = raw_agent(serve_tls(certs, "executor")), raw_agent(answer_each)
    body = {"address": f"127.0.0.1:{registered.port}", "capabilities": ["code.execute"]}
    with open_gateway.client("executor") as executor, open_gateway.client() as planner:

        def reached(agent: RawAgent) -> bool:
            before = len(agent.received)
            assert planner.post("/run", headers=CAPABILITY).status_code == 200
            return len(agent.received) > before

        assert executor.put("/members/executor-1", json=body).status_code == 201
        eventually(lambda: reached(registered))
        write_agents(open_gateway.folder, [member(listed.port, "executor-1")])
        eventually(lambda: reached(listed))
        assert all(reached(listed) for _ in range(10))
        problems = open_gateway.admin("/status").json()["membership"]["problems"]
        assert problems == {
            "executor-1": "left out of registration: the name is taken by a member of file",
        }
        # It may not renew under that name either, and is told why.
        refused = executor.put("/members/executor-1", json=body)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:phoenixflight:name-taken")


def failing(agent: RawAgent, connection: socket.socket) -> None:
    while True:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")


def test_metrics_tell_of_members_rings_and_conversations(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    held = threading.Event()

    def slow(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            if b"/slow" in agent.read_head(connection):
                assert held.wait(20)
            connection.sendall(OK)

    agents = [member(raw_agent(slow).port, f"well-{number}") for number in range(2)]
    gateway = start_gateway([*agents, member(raw_agent(failing).port, "broken")], ring={"points": 256})
    label = 'capability="code.execute"'
    with gateway.client(http2=True) as client:
        answers = [client.post("/run", headers=conversing("one")).status_code for _ in range(3)]
        assert metric(gateway, "capability_members") == {f'{label},state="ready"': 3}
        assert metric(gateway, "ring_points") == {label: 3 * 256}
        assert metric(gateway, "ring_moved_keys_total") == {}
        changes = metric(gateway, "member_changes_total")[""]

        def ejected() -> bool:
            client.post("/run", headers=CAPABILITY)
            return metric(gateway, "ejections_total")['reason="consecutive-failures"'] == 1

        eventually(ejected)
        eventually(lambda: states(gateway)["broken"] == "ejected")
        assert metric(gateway, "capability_members") == {f'{label},state="ready"': 2, f'{label},state="ejected"': 1}
        assert metric(gateway, "ring_points") == {label: 2 * 256}
        eventually(lambda: metric(gateway, "member_changes_total")[""] == changes + 1)
        assert 0.2 < eventually(lambda: metric(gateway, "ring_moved_keys_total").get(label)) < 0.47
        assert 0 < metric(gateway, "ring_build_seconds")[""] < 5

        assert metric(gateway, "ring_load_variation") == {label: 0}
        waiting = threading.Thread(target=client.get, args=("/slow",), kwargs={"headers": CAPABILITY})
        waiting.start()
        # One packet at one of two agents: 100 % off the mean, as is the other.
        eventually(lambda: metric(gateway, "ring_load_variation")[label] > 0.9)
        held.set()
        waiting.join(10)
        answers += [client.post("/run", headers=conversing("one")).status_code for _ in range(3)]
    fates = metric(gateway, "conversation_packets_total")
    assert fates['fate="new"'] == 1
    assert sum(fates.values()) == 6
    assert fates['fate="forced"'] == (answers[0] == 500), "a conversation leaves an agent that is ejected"
    assert answers[3:] == [200] * 3
