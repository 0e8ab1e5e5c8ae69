"""Each attack on HTTP/1.1 that has a name, and agents that answer ambiguously: it costs one connection, and is told."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conformance.beside import beside, counted, counts
from tests.conformance.test_abuse_http2 import answer_all
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, launch, member
from tests.waiting import eventually

PACKET = b"host: gateway\r\nflight-capability: code.execute\r\n"
CHUNKED = b"POST /never HTTP/1.1\r\n" + PACKET + b"transfer-encoding: chunked\r\n\r\n"
NEVER = b"GET /never HTTP/1.1\r\n" + PACKET + b"\r\n"
KEEP_ALIVE = b"GET /run HTTP/1.1\r\n" + PACKET + b"\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, certs) -> Iterator[RunningGateway]:
    agent = RawAgent(answer_all)
    running = launch(
        tmp_path_factory.mktemp("gateway"),
        certs,
        [member(agent.port)],
        limits={"headersTimeout": "500ms", "streamIdleTimeout": "1s"},
    )
    yield running
    running.stop()
    agent.close()


def attack(gateway: RunningGateway, *pieces: bytes) -> bytes:
    """Write the pieces, while it is let, and give what the gateway answered until it closed."""
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.0005)
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                received += data
        return received


ATTACKS = {
    "a head without end": ("header-list-too-large", 431, (b"GET / HTTP/1.1\r\nx: ", *[b"y" * 16384] * 100)),
    "fields without end": (
        "header-list-too-large",
        431,
        (b"GET / HTTP/1.1\r\n", *[b"x: %b\r\n" % (b"y" * 100) * 100] * 100),
    ),
    "a target without end": ("header-list-too-large", 431, (b"GET /", *[b"y" * 16384] * 100)),
    "a head too large in one piece": (
        "header-list-too-large",
        431,
        (b"GET /run HTTP/1.1\r\n" + PACKET + b"x: " + b"y" * 70_000 + b"\r\n\r\n",),
    ),
    "a target too large in one piece": (
        "header-list-too-large",
        431,
        (b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\n" + PACKET + b"\r\n",),
    ),
    "too many fields": (
        "too-many-headers",
        431,
        (b"GET /run HTTP/1.1\r\n" + PACKET + b"".join(b"x-%d: y\r\n" % at for at in range(101)) + b"\r\n",),
    ),
    "too many trailers": (
        "too-many-headers",
        431,
        (CHUNKED, b"0\r\n" + b"".join(b"x-%d: y\r\n" % at for at in range(101)) + b"\r\n"),
    ),
    "a chunk extension without end": ("chunk-overhead", 400, (CHUNKED, b"1;", *[b"y" * 16384] * 100)),
    "a chunk size without end": ("chunk-overhead", 400, (CHUNKED, *[b"0" * 16384] * 100)),
    "chunks of a byte with long extensions": (
        "chunk-overhead",
        400,
        (CHUNKED, *[(b"1;%b\r\nx\r\n" % (b"y" * 200)) * 80] * 100),
    ),
    "empty lines without end": ("empty-lines", 400, (b"\r\n" * 4096,) * 20),
    "empty lines without end after a request": ("empty-lines", 0, (KEEP_ALIVE, *[b"\r\n" * 4096] * 20)),
    "requests without end before an answer": ("pipeline-flood", 0, (NEVER, b"GET / HTTP/1.1\r\nhost: g\r\n\r\n" * 600)),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_with_its_connection_and_is_told_by_name(gateway: RunningGateway, name: str) -> None:
    reason, status, pieces = ATTACKS[name]
    with beside(gateway), counts(gateway, "phoenixflight_abuse_total", listener="local", reason=reason):
        received = attack(gateway, *pieces)
    if status:
        assert received.startswith(b"HTTP/1.1 %d " % status), received[:200]


@pytest.mark.parametrize("piece", [b"x-slow: y\r\n", b"x"], ids=["a field at a time", "a byte at a time"])
def test_a_slow_loris_is_cut_off_by_the_clock(gateway: RunningGateway, piece: bytes) -> None:
    with beside(gateway), socket.create_connection(("127.0.0.1", gateway.plain_port), 20) as connection:
        connection.sendall(b"GET /run HTTP/1.1\r\n")
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 5:
                connection.sendall(piece)
                time.sleep(0.05)
        assert time.monotonic() - began < 3


def test_a_flood_of_tiny_chunks_keeps_nobody_waiting(gateway: RunningGateway) -> None:
    with beside(gateway), socket.create_connection(("127.0.0.1", gateway.plain_port), 20) as connection:
        connection.settimeout(0.5)
        connection.sendall(CHUNKED)
        with contextlib.suppress(TimeoutError):
            for _ in range(10):
                connection.sendall(b"1\r\nx\r\n" * 20_000)


def test_who_reads_no_answers_is_not_read_any_more(gateway: RunningGateway) -> None:
    with beside(gateway, max_growth_bytes=32 * 1024 * 1024), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(("127.0.0.1", gateway.plain_port))
        connection.settimeout(1.0)
        head = b"GET /head HTTP/1.1\r\n" + PACKET + b"x: " + b"y" * 16_000 + b"\r\n\r\n"
        with pytest.raises((TimeoutError, ConnectionError)):  # it is held, or closed where it is too much
            for _ in range(2000):
                connection.sendall(head)


HEADS = b"GET /head HTTP/1.1\r\n" + PACKET + b"\r\n"
UNREAD = {
    "an answer that does not end": NEVER.replace(b"/never", b"/endless"),
    "events that do not end": NEVER.replace(b"/never", b"/events"),
    "answers that are whole": HEADS * 200,
    "answers that are whole, and no more to come": HEADS * 199 + HEADS[:-2] + b"connection: close\r\n\r\n",
}


@pytest.mark.parametrize("size", [0, 1], ids=["nothing", "a byte at a time"])
@pytest.mark.parametrize("asked", UNREAD)
def test_a_slow_reader_holds_the_agent_back_and_is_cut_off_by_the_clock(
    gateway: RunningGateway, asked: str, size: int
) -> None:
    deadline = time.monotonic() + 20
    with (
        counts(gateway, "phoenixflight_abuse_total", listener="local", reason="slow-reader"),
        beside(gateway, max_growth_bytes=32 * 1024 * 1024),
        socket.socket() as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", gateway.plain_port))
        connection.sendall(UNREAD[asked])
        cut_off = select.poll()
        cut_off.register(connection, select.POLLERR)
        while not cut_off.poll(10):
            assert time.monotonic() < deadline
            if size:
                connection.recv(size)
    eventually(lambda: counted(gateway, "phoenixflight_handoffs_in_flight") == 0)
    eventually(lambda: counted(gateway, "phoenixflight_connections", listener="local") == 0)


AMBIGUOUS_ANSWERS = {
    "both lengths": b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "lengths in the other order": b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": b"content-length: 2\r\ncontent-length: 40\r\n\r\nok",
    "a list of lengths": b"content-length: 2, 2\r\n\r\nok",
    "a signed length": b"content-length: +2\r\n\r\nok",
    "a length with zeros in front": b"content-length: 002\r\n\r\nok",
    "chunked twice": b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding that looks like chunked": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "obs-fold": b"x: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    "a bare LF": b"x: y\ncontent-length: 2\r\n\r\nok",
    "a bare CR": b"x: a\rb\r\ncontent-length: 2\r\n\r\nok",
    "a NUL": b"x: a\x00b\r\ncontent-length: 2\r\n\r\nok",
    "a space before the colon": b"content-length : 2\r\n\r\nok",
    "a connection field that names the length": b"connection: content-length\r\ncontent-length: 2\r\n\r\nok",
    "too many fields": b"".join(b"x-%d: y\r\n" % at for at in range(101)) + b"content-length: 2\r\n\r\nok",
}
AMBIGUOUS_STARTS = {
    "another version": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "another protocol": b"RTSP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "a status of none": b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nok",
    "a status beyond": b"HTTP/1.1 600 OK\r\ncontent-length: 2\r\n\r\nok",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "an interim answer with a body": b"HTTP/1.1 103 Hints\r\ncontent-length: 40\r\n\r\n",
    "interim answers without end": b"HTTP/1.1 103 Hints\r\n\r\n" * 200,
    "a 204 with a body": b"HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\nok",
    "an upgrade that nobody asked for": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
}
ANSWERS = {name: b"HTTP/1.1 200 OK\r\n" + rest for name, rest in AMBIGUOUS_ANSWERS.items()} | AMBIGUOUS_STARTS


def test_an_agents_ambiguous_answer_is_502_and_its_connection_is_not_used_again(
    raw_agent, start_gateway: StartGateway
) -> None:
    names = iter(ANSWERS)

    def ambiguous(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            head = agent.read_head(connection)
            assert len(agent.received) == agent.connections, head
            connection.sendall(ANSWERS[next(names)])

    agent = raw_agent(ambiguous)
    gateway = start_gateway([member(agent.port)], health={"outlier": {"consecutiveFailures": 1000}})
    with httpx.Client(base_url=gateway.plain_url, timeout=5, trust_env=False) as client:
        for name in ANSWERS:
            response = client.post("/run", headers=CAPABILITY, content=b"job")
            assert response.status_code == 502, (name, response.text)
    assert len(agent.received) == agent.connections


def test_bytes_after_an_answer_answer_nobody(raw_agent, start_gateway: StartGateway) -> None:
    two = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"

    def answers_twice(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            agent.read_head(connection)
            connection.sendall(two)

    gateway = start_gateway([member(raw_agent(answers_twice).port)])
    with httpx.Client(base_url=gateway.plain_url, timeout=5, trust_env=False) as client:
        assert [client.get("/run", headers=CAPABILITY).text for _ in range(5)] == ["ok"] * 5
