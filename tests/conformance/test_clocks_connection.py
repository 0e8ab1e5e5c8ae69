"""Clocks on connections: heads that never end, connections that grow old, agents that vanish without a word."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import h2.events
import pytest
from hyperframe.frame import ContinuationFrame, HeadersFrame

from tests.conformance.beside import beside, counted
from tests.conformance.test_http1 import OK, answer_each
from tests.conformance.test_http2 import HEADERS, Peer, connect
from tests.conformance.test_retries import ask, packet
from tests.conftest import RawAgent, RunningGateway, StartGateway, member
from tests.waiting import eventually

REQUEST = b"GET /run HTTP/1.1\r\nhost: gateway\r\nflight-capability: code.execute\r\n\r\n"
DRIBBLE_S = 0.05

MakeAgent = Callable[[Callable[[RawAgent, socket.socket], None]], RawAgent]


def fired(gateway: RunningGateway, side: str, clock: str) -> float:
    return counted(gateway, "phoenixflight_connection_clocks_total", side=side, clock=clock)


@pytest.fixture
def agent(raw_agent: MakeAgent) -> RawAgent:
    return raw_agent(answer_each)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def plain(gateway: RunningGateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.plain_port), 10)


def answered(connection: socket.socket) -> bytes:
    """The head of an answer without body, or with that of `OK`."""
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"ok"):
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece
    return answer


def dribble(connection: socket.socket, data: bytes) -> float:
    """Send byte by byte until the gateway has enough of it; gives after how many seconds."""
    began = time.monotonic()
    connection.settimeout(DRIBBLE_S)
    for at in range(len(data)):
        try:
            connection.sendall(data[at : at + 1])
            if not connection.recv(65536):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    else:
        raise AssertionError("it has taken all of it")
    return time.monotonic() - began


def later_head(gateway: RunningGateway) -> float:
    with plain(gateway) as connection:
        answered(connection)
        return dribble(connection, REQUEST[:-2] + b"x: " + b"x" * 1000)


def first_head(gateway: RunningGateway) -> float:
    with plain(gateway) as connection:
        return dribble(connection, REQUEST[:-2] + b"x: " + b"x" * 1000)


def header_block(gateway: RunningGateway) -> float:
    """A block that CONTINUATION frames go on with, a byte in each."""
    with greeted(gateway) as peer:
        stream = peer.h2.get_next_available_stream_id()
        block = peer.h2.encoder.encode([*HEADERS, *((f"x-{number}", "x") for number in range(100))])
        first = HeadersFrame(stream, block[:10])
        peer.socket.sendall(first.serialize())
        began = time.monotonic()
        peer.socket.settimeout(DRIBBLE_S * 10)
        for at in range(10, len(block)):
            try:
                peer.socket.sendall(ContinuationFrame(stream, block[at : at + 1]).serialize())
                if not peer.socket.recv(65536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            raise AssertionError("it has taken all of it")
        return time.monotonic() - began


def header_frame(gateway: RunningGateway) -> float:
    """A HEADERS frame that comes byte by byte."""
    with greeted(gateway) as peer:
        stream = peer.h2.get_next_available_stream_id()
        frame = HeadersFrame(stream, peer.h2.encoder.encode([*HEADERS, ("x", "x" * 1000)]), flags=["END_HEADERS"])
        return dribble(peer.socket, frame.serialize())


@contextlib.contextmanager
def greeted(gateway: RunningGateway) -> Iterator[Peer]:
    """A caller over HTTP/2 that has been answered once, so that only what comes next is on trial."""
    peer = connect(gateway)
    with peer.socket:
        peer.event(h2.events.StreamEnded, peer.request(HEADERS))
        yield peer


def test_a_head_that_never_ends_costs_its_connection_while_others_are_served(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)], limits={"headersTimeout": "1s"})
    with beside(gateway), plain(gateway) as patient, ThreadPoolExecutor() as threads:
        answered(patient)
        slow = [threads.submit(way, gateway) for way in (first_head, later_head, header_block, header_frame)]
        took_s = [each.result() for each in slow]
        # Who is silent between two requests is not slow, however often the clock could have run out meanwhile.
        answered(patient)
    assert all(0.9 < each < 5 for each in took_s), took_s
    assert fired(gateway, "caller", "headers") == len(took_s)


def test_an_old_connection_of_a_caller_is_asked_to_end_and_no_stream_is_cut(
    raw_agent: MakeAgent, start_gateway: StartGateway, gate: threading.Event
) -> None:
    def slow(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            if b"/slow" in agent.read_head(connection):
                gate.wait(10)
            connection.sendall(OK)

    gateway = start_gateway([member(raw_agent(slow).port)], limits={"maxConnectionAge": "1s"})
    peer = connect(gateway)
    stream = peer.request([(name, "/slow" if name == ":path" else value) for name, value in HEADERS])
    with plain(gateway) as idle:
        assert b"connection: close" not in answered(idle)
        eventually(lambda: fired(gateway, "caller", "age") == 2)
        # It could have crossed a request on its way: so it is open yet, and the next answer says that it was the last.
        assert b"connection: close" in answered(idle)
        assert idle.recv(1) == b""
    time.sleep(1.2)  # longer than another age
    gate.set()
    assert peer.event(h2.events.DataReceived, stream).data == b"ok"
    with pytest.raises(EOFError):
        peer.until(lambda _: False)


def test_an_old_connection_to_an_agent_gets_no_new_requests_and_finishes_the_one_that_it_has(
    raw_agent: MakeAgent, start_gateway: StartGateway, gate: threading.Event
) -> None:
    def slow(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            if b"/slow" in agent.read_head(connection):
                gate.wait(10)
            connection.sendall(OK)

    agent = raw_agent(slow)
    gateway = start_gateway([member(agent.port)], limits={"upstreamMaxConnectionAge": "1s"})
    assert ask(gateway, "GET").text == "ok"
    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(ask, gateway, "GET", "/slow")
        eventually(lambda: fired(gateway, "agent", "age") == 1)
        assert ask(gateway, "GET").text == "ok"
        assert agent.connections == 2
        gate.set()
        assert long.result().text == "ok"


def test_an_agent_that_gives_no_sign_of_life_is_lost_and_one_that_does_is_waited_for(
    raw_agent: MakeAgent, start_gateway: StartGateway
) -> None:
    def hangs(agent: RawAgent, connection: socket.socket) -> None:
        peer = Peer(connection, client=False)
        peer.event(h2.events.RequestReceived)
        agent.received.append(b"request")
        time.sleep(15)

    def thinks(agent: RawAgent, connection: socket.socket) -> None:
        peer = Peer(connection, client=False)
        while True:
            stream = peer.event(h2.events.RequestReceived).stream_id
            while len(agent.received) < 2:
                peer.event(h2.events.PingReceived)  # answered by the library
                agent.received.append(b"ping")
            peer.h2.send_headers(stream, [(":status", "200")])
            peer.h2.send_data(stream, b"ok", end_stream=True)
            peer.flush()

    hanging, thinking = raw_agent(hangs), raw_agent(thinks)
    gateway = start_gateway(
        [member(hanging.port, "hanging", protocol="h2c"), member(thinking.port, "thinking", protocol="h2c")],
        limits={"upstreamPingAfter": "500ms", "upstreamPingTimeout": "3s"},
    )
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(ask, gateway, "GET", headers=packet(number)) for number in range(6)]
        assert {each.result().text for each in asked} == {"ok"}
    assert hanging.received
    assert len(thinking.received) == 2
    assert fired(gateway, "agent", "silence") == hanging.connections
