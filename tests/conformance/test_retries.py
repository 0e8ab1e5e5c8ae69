"""A packet that an agent fails is sent to another one: when that is safe, in time, and never as a flood."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conformance.beside import counted
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, member
from tests.waiting import eventually

PACKETS = 12
"""Enough for each of two agents to be the first choice of some: by their ids, so of the same each time."""
UNMOVED = {"outlier": {"consecutiveFailures": 1_000_000}, "reliability": {"halfLife": "1ms"}}
"""Nobody is ejected, or has a smaller share, so that agents go on failing."""
KEY = {"idempotency-key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}

MakeAgent = Callable[[Callable[[RawAgent, socket.socket], None]], RawAgent]


def as_told(agent: RawAgent, connection: socket.socket) -> None:
    """Answer with the status that the path names, the body some time after the head."""
    while True:
        head = agent.read_head(connection)
        status = head.split(b" ", 2)[1].split(b"/")[1]
        connection.sendall(b"HTTP/1.1 %s Told\r\nretry-after: 30\r\ncontent-length: 4\r\n\r\n" % status)
        time.sleep(0.02)
        connection.sendall(b"told")


def breaks_off(agent: RawAgent, connection: socket.socket) -> None:
    """Take a head and what else is there by then, and close."""
    agent.read_head(connection)


def ask(gateway: RunningGateway, method: str, path: str = "/run", **more: object) -> httpx.Response:
    headers = {**CAPABILITY, **more.pop("headers", {})}  # type: ignore[dict-item]
    with httpx.Client(base_url=gateway.plain_url, timeout=10, trust_env=False) as client:
        return client.request(method, path, headers=headers, **more)  # type: ignore[arg-type]


def ask_often(gateway: RunningGateway, method: str, path: str = "/run", **more: object) -> list[httpx.Response]:
    headers = more.pop("headers", {})
    return [
        ask(gateway, method, path, headers={**packet(number), **headers}, **more)  # type: ignore[dict-item]
        for number in range(PACKETS)
    ]


def packet(number: int) -> dict[str, str]:
    return {"flight-id": f'"packet-{number}"'}


def retries(gateway: RunningGateway, **labels: str) -> float:
    return counted(gateway, "phoenixflight_retries_total", **labels)


def two(failing: RawAgent, willing: RawAgent) -> list[dict[str, object]]:
    return [member(failing.port, "failing"), member(willing.port, "willing")]


def test_another_agent_may_have_a_better_answer_than_502_503_and_504(
    raw_agent: MakeAgent, start_gateway: StartGateway
) -> None:
    failing, willing = raw_agent(as_told), raw_agent(answer_each)
    gateway = start_gateway(two(failing, willing), health=UNMOVED)
    for status in (502, 503, 504):
        answers = ask_often(gateway, "GET", f"/{status}")
        assert {answer.status_code for answer in answers} == {200}
        again = [answer for answer in answers if answer.headers.get("flight-attempts") == "2"]
        assert {answer.headers["flight-agent"] for answer in again} == {'"willing"'}
    assert retries(gateway, reason="answered", outcome="retried") == len(failing.received) > 0
    line = gateway.handoff(path="/503", attempts=2)
    (failed,) = line["failed"]
    assert (failed["agent"], failed["cause"], line["agent"]) == ("failing", "answered", "willing")
    assert failed["asked_ms"] <= failed["sent_ms"] <= failed["ended_ms"] <= line["asked_ms"]
    assert line["asked_ms"] <= line["sent_ms"] <= line["answered_ms"] <= line["duration_ms"]
    # An answer that nobody wants is read, and its connection used again.
    assert failing.connections < len(failing.received)
    # What may not be done twice, and what speaks of the packet itself, is the caller's to hear.
    for method, status in (("POST", 503), ("GET", 500), ("GET", 429)):
        answers = ask_often(gateway, method, f"/{status}")
        assert {answer.status_code for answer in answers} == {200, status}
        told = next(answer for answer in answers if answer.status_code == status)
        assert (told.text, told.headers["retry-after"]) == ("told", "30")
        assert all("flight-attempts" not in answer.headers for answer in answers)
    assert retries(gateway, reason="answered", outcome="not-safe") > 0
    # A sender may mark it as harmless to do twice.
    assert {answer.status_code for answer in ask_often(gateway, "POST", "/503", headers=KEY)} == {200}


def test_a_packet_that_may_have_been_done_is_sent_again_only_if_that_does_no_harm(
    raw_agent: MakeAgent, start_gateway: StartGateway
) -> None:
    failing, willing = raw_agent(breaks_off), raw_agent(answer_each)
    gateway = start_gateway(two(failing, willing), health=UNMOVED)
    posts = ask_often(gateway, "POST", "/post")
    assert {answer.status_code for answer in posts} == {200, 502}
    reached = [head for agent in (failing, willing) for head in agent.received]
    assert len(reached) == PACKETS, "each has reached one agent"
    assert retries(gateway, reason="broken-off", outcome="not-safe") == len(failing.received)
    for method, headers in (("GET", {}), ("PUT", {}), ("POST", KEY)):
        assert {answer.status_code for answer in ask_often(gateway, method, headers=headers)} == {200}
    assert retries(gateway, reason="broken-off", outcome="retried") > 0


def test_a_body_is_sent_again_as_it_came_and_one_over_64_kib_is_not(
    raw_agent: MakeAgent, start_gateway: StartGateway
) -> None:
    bodies: list[bytes] = []

    def takes_much(agent: RawAgent, connection: socket.socket) -> None:
        got = len(agent.read_head(connection))
        while got < 60_000 and (piece := connection.recv(65536)):
            got += len(piece)

    def takes_all(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            head, _, body = agent.read_head(connection).partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            while len(body) < length:
                body += connection.recv(65536)
            bodies.append(body)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    failing, willing = raw_agent(takes_much), raw_agent(takes_all)
    gateway = start_gateway(two(failing, willing), health=UNMOVED)
    small, large = bytes(range(256)) * 240, bytes(range(256)) * 4096
    assert {answer.status_code for answer in ask_often(gateway, "PUT", content=small)} == {200}
    assert failing.received
    assert bodies == [small] * PACKETS
    assert {answer.status_code for answer in ask_often(gateway, "PUT", content=large)} == {200, 502}


@pytest.fixture
def soon_back(raw_agent: MakeAgent) -> RawAgent:
    """Answers every other packet that it should be asked again in a second."""

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            agent.read_head(connection)
            if len(agent.received) % 2:
                connection.sendall(b"HTTP/1.1 503 Wait\r\nretry-after: 1\r\ncontent-length: 4\r\n\r\nwait")
            else:
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nback")

    return raw_agent(serve)


def test_the_only_agent_is_asked_again_when_it_said_if_the_packet_has_the_time(
    soon_back: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(soon_back.port)], health=UNMOVED)
    began = time.monotonic()
    answer = ask(gateway, "GET", headers={"flight-timeout": "5000"})
    assert (answer.status_code, answer.text) == (200, "back")
    assert time.monotonic() - began >= 1
    began = time.monotonic()
    answer = ask(gateway, "GET", headers={"flight-timeout": "900"})
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "wait", "1")
    assert time.monotonic() - began < 0.9, "it is told at once"
    assert retries(gateway, reason="answered", outcome="no-time") == 1


def test_a_delay_before_a_retry_leaves_time_for_it(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    failing, willing = raw_agent(breaks_off), raw_agent(answer_each)
    gateway = start_gateway(two(failing, willing), health=UNMOVED, retries={"backoff": "1h", "budgetFloor": PACKETS})
    began = time.monotonic()
    with ThreadPoolExecutor(PACKETS) as threads:
        asked = [
            threads.submit(ask, gateway, "GET", headers={**packet(number), "flight-timeout": "2000"})
            for number in range(PACKETS)
        ]
        statuses = {each.result().status_code for each in asked}
    # By chance the delay is over just before the deadline.
    assert 200 in statuses <= {200, 504}
    assert time.monotonic() - began < 5


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_when_the_budget_is_used_up_packets_fail_and_agents_are_left_alone(
    raw_agent: MakeAgent, start_gateway: StartGateway, gate: threading.Event
) -> None:
    def waits(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            agent.read_head(connection)
            gate.wait(10)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    failing, willing = raw_agent(breaks_off), raw_agent(waits)
    gateway = start_gateway(two(failing, willing), health=UNMOVED, retries={"budgetPercent": 0, "budgetFloor": 1})
    with ThreadPoolExecutor(PACKETS) as threads:
        asked = [threads.submit(ask, gateway, "GET", headers=packet(number)) for number in range(PACKETS)]
        eventually(lambda: retries(gateway, outcome="budget-exhausted") == len(failing.received) - 1 > 0)
        assert retries(gateway, outcome="retried") == 1
        gate.set()
        statuses = [each.result().status_code for each in asked]
    assert statuses.count(502) == len(failing.received) - 1
    assert statuses.count(200) == len(willing.received)
    # And there is room again.
    assert {answer.status_code for answer in ask_often(gateway, "GET")} == {200}


def test_many_packets_of_an_agent_that_dies_have_their_turn_one_after_the_other(
    raw_agent: MakeAgent, start_gateway: StartGateway, gate: threading.Event
) -> None:
    def dies(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        gate.wait(10)

    failing, willing = raw_agent(dies), raw_agent(answer_each)
    gateway = start_gateway(two(failing, willing), health=UNMOVED, retries={"budgetPercent": 0, "budgetFloor": 1})
    with ThreadPoolExecutor(PACKETS) as threads:
        asked = [threads.submit(ask, gateway, "GET", headers=packet(number)) for number in range(PACKETS)]
        eventually(lambda: len(failing.received) + len(willing.received) == PACKETS and len(failing.received) > 1)
        gate.set()
        assert {each.result().status_code for each in asked} == {200}
