"""A gateway that is told to stop: who is told what, what is still served, and what a second signal does."""

from __future__ import annotations

import signal
import socket
import threading
import time

import h2.config
import h2.connection
import pytest

from gateway.recorder import Reader
from tests.conftest import RawAgent, RunningGateway, StartGateway, member
from tests.waiting import eventually

REQUEST = b"GET /run HTTP/1.1\r\nhost: mesh\r\nflight-capability: code.execute\r\n\r\n"
HEADERS, PING, GOAWAY = 1, 6, 7
"""Types of frames (RFC 9113 section 6)."""
H2_REQUEST = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "mesh"),
    (":path", "/run"),
    ("flight-capability", "code.execute"),
]


class Held:
    """An agent that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()

    def serve(self, agent: RawAgent, connection: socket.socket) -> None:
        while True:
            agent.read_head(connection)
            self.asked.set()
            self.go.wait(20)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def connect(gateway: RunningGateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.plain_port), 10)


def answer(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data or not data.endswith(b"ok"):
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def stop(gateway: RunningGateway) -> None:
    """Tell it to, and wait until it drains."""
    gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: "draining for at most" in gateway.log())


class H2Caller:
    """A caller that sends what it likes and acknowledges nothing but SETTINGS."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._data = b""
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()

    def ask(self, stream: int) -> None:
        self._h2.send_headers(stream, H2_REQUEST, end_stream=True)
        self.socket.sendall(self._h2.data_to_send())

    def frame(self, wanted: int) -> tuple[int, bytes]:
        """Stream and payload of the next frame of this type."""
        while True:
            while len(self._data) < 9 or len(self._data) < 9 + int.from_bytes(self._data[:3], "big"):
                piece = self.socket.recv(65536)
                assert piece, "the connection ended"
                self._data += piece
            size = 9 + int.from_bytes(self._data[:3], "big")
            frame, self._data = self._data[:size], self._data[size:]
            if frame[3] == wanted:
                return int.from_bytes(frame[5:9], "big"), frame[9:]


def test_everything_is_served_until_the_delay_is_over_but_readiness(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(ok).port)], limits={"drainDelay": "60s"})
    with connect(gateway) as before:
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: gateway.admin("/readyz").status_code == 503)
        with connect(gateway) as new:
            for connection in (before, new):
                connection.sendall(REQUEST)
                assert b"connection: close" not in answer(connection)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(20) == 0, "nothing was cut off"


def ok(agent: RawAgent, connection: socket.socket) -> None:
    while True:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def test_http1_is_told_with_its_next_answer_and_a_request_under_way_is_finished(
    raw_agent, start_gateway: StartGateway
) -> None:
    held = Held()
    gateway = start_gateway([member(raw_agent(held.serve).port)])
    with connect(gateway) as busy, connect(gateway) as idle:
        busy.sendall(REQUEST)
        assert held.asked.wait(10)
        idle.sendall(b"GET /run HTTP/1.1\r\n")  # a head that is on its way
        stop(gateway)
        idle.sendall(REQUEST.partition(b"\r\n")[2])
        held.go.set()
        for connection in (busy, idle):
            assert b"connection: close\r\n" in answer(connection)
            assert connection.recv(1) == b""
    assert gateway.process.wait(20) == 0
    assert [each["outcome"] for each in gateway.handoffs()] == ["completed"] * 2


def test_http2_is_told_twice_and_what_it_sent_before_it_knew_is_served(raw_agent, start_gateway: StartGateway) -> None:
    held = Held()
    gateway = start_gateway([member(raw_agent(held.serve).port)])
    with connect(gateway) as connection:
        caller = H2Caller(connection)
        caller.ask(1)
        assert held.asked.wait(10)
        stop(gateway)
        assert caller.frame(GOAWAY) == (0, (2**31 - 1).to_bytes(4, "big") + bytes(4))
        _, ping = caller.frame(PING)
        caller.ask(3)  # as if it had not read that when it sent this
        connection.sendall(b"\x00\x00\x08\x06\x01\x00\x00\x00\x00" + ping)
        assert caller.frame(GOAWAY) == (0, (3).to_bytes(4, "big") + bytes(4))
        held.go.set()
        assert {caller.frame(HEADERS)[0], caller.frame(HEADERS)[0]} == {1, 3}
    assert gateway.process.wait(20) == 0
    assert [each["outcome"] for each in gateway.handoffs()] == ["completed"] * 2


def test_a_caller_that_acknowledges_nothing_holds_nobody_up(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(ok).port)])
    with connect(gateway) as deaf, connect(gateway) as silent, connect(gateway) as idle, connect(gateway) as half:
        half.sendall(b"GET /run HTTP/1.1\r\n")
        caller = H2Caller(deaf)
        caller.ask(1)
        caller.frame(HEADERS)
        idle.sendall(REQUEST)
        answer(idle)
        assert silent.fileno()
        began = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(20) == 0
        assert time.monotonic() - began < 15, "the drain timeout is 30 s"


@pytest.mark.parametrize("twice", [True, False], ids=["second signal", "drain timeout"])
def test_what_has_no_more_time_is_told_so(raw_agent, start_gateway: StartGateway, twice: bool) -> None:
    held = Held()
    limits = {"drainTimeout": "60s" if twice else "200ms"}
    gateway = start_gateway([member(raw_agent(held.serve).port)], limits=limits)
    with connect(gateway) as connection:
        connection.sendall(REQUEST)
        assert held.asked.wait(10)
        gateway.process.send_signal(signal.SIGTERM)
        if twice:
            eventually(lambda: "draining for at most" in gateway.log())
            gateway.process.send_signal(signal.SIGTERM)
        told = connection.recv(65536)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"urn:phoenixflight:draining" in told
    assert gateway.process.wait(20) == 1
    (handoff,) = gateway.handoffs()
    assert (handoff["outcome"], handoff["reason"]) == ("failed", "draining")


def test_a_collector_that_does_not_answer_holds_nobody_up_who_insists(raw_agent, start_gateway: StartGateway) -> None:
    deaf = raw_agent(lambda agent, connection: threading.Event().wait(60))
    tracing = {"otlpEndpoint": f"http://127.0.0.1:{deaf.port}/v1/traces", "sampleRatio": 1.0}
    gateway = start_gateway(
        [member(raw_agent(ok).port)],
        telemetry={"accessLog": "access.log", "tracing": tracing},
        recorder={"folder": "recorder"},
    )
    with connect(gateway) as connection:
        connection.sendall(REQUEST)
        answer(connection)
    gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: deaf.connections and len(gateway.handoffs()) == 1)
    eventually(lambda: len(list(Reader(gateway.folder / "recorder").records())) == 1)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(5) == 0
