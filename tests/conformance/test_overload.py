"""Overload through real sockets: who is turned away and how, who is served all the same, what is counted."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from gateway.overload import Level
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, client_context, member
from tests.fleet import numbers
from tests.membership.registering import registering, soon
from tests.waiting import eventually

REQUEST = b"GET /run HTTP/1.1\r\nhost: gateway\r\nflight-capability: code.execute\r\n\r\n"
PROMPT_S = 1.0


def metric(gateway: RunningGateway, sample: str) -> float:
    for line in gateway.admin("/metrics").text.splitlines():
        if line.startswith(f"phoenixflight_{sample} "):
            return float(line.split()[-1])
    return 0.0


def hang(agent: RawAgent, connection: socket.socket) -> None:
    """Take requests, answer none."""
    while True:
        agent.read_head(connection)


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


@pytest.fixture
def silent(raw_agent) -> RawAgent:
    return raw_agent(hang)


def ask(gateway: RunningGateway, connection: socket.socket | None = None) -> socket.socket:
    """Send a request of the local caller's; it is not waited for."""
    connection = connection or socket.create_connection(("127.0.0.1", gateway.plain_port), 5)
    connection.sendall(REQUEST)
    return connection


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], str]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise EOFError
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in rest)
    while len(body) < int(fields.get("content-length", 0)):
        body += connection.recv(65536)
    return int(first.split()[1]), fields, body.decode()


# -- one caller beside another ------------------------------------------------------------------------------


def greed(gateway: RunningGateway, stop: threading.Event) -> None:
    """Pipeline as much as a socket takes, and read what comes back."""
    while not stop.is_set():
        try:
            with socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:
                connection.settimeout(0.05)
                while not stop.is_set():
                    try:
                        connection.sendall(REQUEST * 50)
                        while connection.recv(65536):
                            pass
                    except TimeoutError:
                        continue
        except OSError:
            continue


def test_a_polite_caller_is_answered_within_a_second_beside_a_greedy_one(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])
    stop = threading.Event()
    greedy = [threading.Thread(target=greed, args=(gateway, stop), daemon=True) for _ in range(20)]
    with gateway.client() as polite:
        polite.post("/run", headers=CAPABILITY)
        before = gateway.rss_bytes()
        for each in greedy:
            each.start()
        took = []
        try:
            for _ in range(20):
                began = time.monotonic()
                assert polite.post("/run", headers=CAPABILITY).status_code == 200
                took.append(time.monotonic() - began)
        finally:
            stop.set()
            for each in greedy:
                each.join()
    assert max(took) < PROMPT_S
    assert gateway.rss_bytes() - before < 64 * 2**20


# -- per principal ------------------------------------------------------------------------------------------


def test_a_caller_has_only_so_many_requests_under_way(silent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(silent.port)], overload={"maxInFlightPerPrincipal": 2})
    open_ones = [ask(gateway), ask(gateway)]
    eventually(lambda: len(silent.received) == 2)
    third = ask(gateway)
    status, fields, body = read_answer(third)
    assert status == 429
    assert int(fields["retry-after"]) >= 1
    assert "urn:phoenixflight:rate-limited" in body
    assert metric(gateway, 'shed_total{reason="concurrency"}') == 1
    # Another caller is let in, to the agent that answers nobody.
    with (
        socket.create_connection(("127.0.0.1", gateway.tls_port), 5) as raw,
        client_context(gateway.certs).wrap_socket(raw, server_hostname="127.0.0.1") as another,
    ):
        another.sendall(REQUEST)
        eventually(lambda: len(silent.received) == 3)
    open_ones.pop().close()
    eventually(lambda: metric(gateway, "handoffs_in_flight") == 1)
    ask(gateway, third)
    eventually(lambda: len(silent.received) == 4)


def test_a_caller_sends_only_so_often(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)], overload={"ratePerPrincipal": "1/h"})
    connection = ask(gateway)
    assert read_answer(connection)[0] == 200
    status, fields, _ = read_answer(ask(gateway, connection))
    assert status == 429
    assert 3500 < int(fields["retry-after"]) <= 3600
    with gateway.client() as another:
        assert another.get("/run", headers=CAPABILITY).status_code == 200
    assert metric(gateway, 'shed_total{reason="rate"}') == 1
    assert eventually(lambda: "turned away 1 requests: 1 of spiffe://mesh.local/ns/agents/sa/local" in gateway.log())
    assert len(eventually(lambda: gateway.handoffs()[1:])) == 1  # what is turned away is no handoff


def test_a_caller_that_goes_on_within_retry_after_is_held_and_in_the_end_closed(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)], overload={"ratePerPrincipal": "1/h"})
    connection = ask(gateway)
    assert read_answer(connection)[0] == 200
    with pytest.raises((EOFError, ConnectionError)):
        while True:
            assert read_answer(ask(gateway, connection))[0] in {429, 503}  # 503 for what waited while it was held
    assert metric(gateway, 'ignored_retry_after_total{push="hold"}') == 8
    assert metric(gateway, 'ignored_retry_after_total{push="close"}') == 1
    with gateway.client() as another:
        assert another.get("/run", headers=CAPABILITY).status_code == 200


# -- per agent and per capability ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"maxInFlightPerAgent": 2}, "executor-1"),
        ({"maxInFlightPerCapability": 2}, "code.execute"),
        ({"maxConnectionsPerAgent": 1, "maxPendingPerAgent": 1}, "executor-1"),
        ({"maxConnectionsPerAgent": 1, "maxPendingPerCapability": 1}, "code.execute"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_an_agent_and_a_capability_have_only_so_much_under_way(
    silent: RawAgent, start_gateway: StartGateway, limits: dict[str, int], named: str
) -> None:
    gateway = start_gateway([member(silent.port)], limits=limits)
    first = ask(gateway)
    eventually(lambda: silent.received)
    second = ask(gateway)
    eventually(lambda: metric(gateway, "handoffs_in_flight") == 2)
    status, fields, body = read_answer(ask(gateway))
    assert status == 503
    assert fields["retry-after"] == "1"
    assert "urn:phoenixflight:overloaded" in body
    assert named in body
    for each in (first, second):
        each.close()
    eventually(lambda: metric(gateway, "handoffs_in_flight") == 0)
    again = ask(gateway)
    eventually(lambda: metric(gateway, "handoffs_in_flight") == 1)
    again.close()


def test_who_waits_for_an_agent_takes_turns_by_caller(raw_agent, start_gateway: StartGateway) -> None:
    turn = threading.Semaphore(0)

    def one_by_one(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            agent.read_head(connection)
            turn.acquire()
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    agent = raw_agent(one_by_one)
    gateway = start_gateway([member(agent.port)], limits={"maxConnectionsPerAgent": 1})
    greedy = [ask(gateway) for _ in range(30)]
    eventually(lambda: metric(gateway, "handoffs_in_flight") == 30)
    answered: list[int] = []
    with gateway.client() as client:
        polite = threading.Thread(
            target=lambda: answered.append(client.get("/run", headers=CAPABILITY).status_code), daemon=True
        )
        polite.start()
        eventually(lambda: metric(gateway, "handoffs_in_flight") == 31)
        for _ in range(4):  # the one at the agent, one of the greedy caller's at most before it, and a spare
            turn.release()
        polite.join(10)
    assert answered == [200]
    for each in greedy:
        each.close()
    for _ in greedy:
        turn.release()


# -- memory -------------------------------------------------------------------------------------------------


def test_out_of_memory_no_connections_are_accepted_and_the_gateway_says_so(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)], overload={"maxMemoryBytes": 16 * 2**20})
    eventually(lambda: metric(gateway, "overload_level") == 3)
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:  # noqa: PT011
        connection.sendall(REQUEST)
        if not connection.recv(100):
            raise ConnectionResetError
    assert metric(gateway, "connections_refused_total") >= 1
    assert metric(gateway, "memory_used_ratio") > 1
    assert "overload level NO_CONNECTIONS" in gateway.log()


async def answered(client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/run", headers=CAPABILITY)


async def test_short_of_memory_connections_are_not_kept_alive(certs: Path) -> None:
    async with registering(certs) as running:
        for http2 in (False, True):
            running.plane.door.level = Level.NORMAL
            async with running.client("planner", http2=http2) as client:
                assert "connection" not in (await answered(client)).headers
                assert len(running.listener.connections) == 1
                running.plane.door.level = Level.NO_KEEP_ALIVE
                last = await answered(client)
                assert last.status_code == 404  # there is no agent here: it was looked for
                if not http2:
                    assert last.headers["connection"] == "close"
                await soon(lambda: not running.listener.connections)
                assert (await answered(client)).status_code == 404  # over a new connection


async def test_shorter_of_memory_requests_are_turned_away(certs: Path) -> None:
    async with registering(certs) as running, running.client("planner", http2=True) as client:
        assert (await answered(client)).status_code == 404
        running.plane.door.level = Level.NO_STREAMS
        refused = await answered(client)
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:phoenixflight:overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        grpc = await client.post("/run", headers={**CAPABILITY, "content-type": "application/grpc"})
        assert (grpc.status_code, grpc.headers["grpc-status"]) == (200, "14")
        assert not (await client.head("/run", headers=CAPABILITY)).content


# -- waiting at the door ------------------------------------------------------------------------------------


def test_a_request_that_waited_at_the_door_arrives_whole(raw_agent, start_gateway: StartGateway) -> None:
    """With hardly any time in a turn, nearly everything waits."""

    def echo(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            data = agent.read_head(connection)
            head, _, body = data.partition(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
            while len(body) < int(fields[b"content-length"]):
                body += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    agent = raw_agent(echo)
    gateway = start_gateway([member(agent.port)], overload={"turn": "0.001ms"})
    bodies = [f"body {number} ".encode() * (1 + number * 300) for number in range(40)]
    context = client_context(gateway.certs, "planner", alpn=["h2"])

    async def all_at_once() -> list[bytes]:
        async with httpx.AsyncClient(
            base_url=gateway.url, verify=context, http2=True, timeout=20, trust_env=False
        ) as client:
            answers = await asyncio.gather(*(client.post("/run", headers=CAPABILITY, content=body) for body in bodies))
            assert {each.status_code for each in answers} == {200}
            return [each.content for each in answers]

    assert asyncio.run(all_at_once()) == bodies
    handoffs = eventually(lambda: len(gateway.handoffs()) == len(bodies) and gateway.handoffs())
    waited_ms = sum(handoff.get("waited_ms", 0) for handoff in handoffs)
    assert waited_ms > 0
    summed = numbers(gateway.admin("/metrics").text, "phoenixflight_phase_duration_seconds_sum")['phase="receive"']
    assert summed == pytest.approx(waited_ms / 1000)
