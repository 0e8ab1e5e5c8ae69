"""HTTP/2 through real sockets: bad fields, flow control, cancellation, GOAWAY, both ways."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hyperframe.frame import GoAwayFrame

from tests.conformance.test_http1 import answer_each
from tests.conftest import RawAgent, RunningGateway, StartGateway, member
from tests.waiting import eventually

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "gateway"),
    (":path", "/run"),
    ("flight-capability", "code.execute"),
]


class Peer:
    """An HTTP/2 peer on a blocking socket that does as it is told, right or wrong."""

    def __init__(self, connection: socket.socket, *, client: bool = True) -> None:
        self.socket = connection
        self.socket.settimeout(5)
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        # The library ends a connection at GOAWAY; this peer lets open streams finish (RFC 9113 section 6.8).
        self.h2._frame_dispatch_table[GoAwayFrame] = lambda frame: ([], [])
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(self, headers: list[tuple[str, str]], *, ended: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers, end_stream=ended)
        self.flush()
        return stream

    def settle(self) -> None:
        """Wait until the other end has read all that was sent."""
        self.h2.ping(b"sent all")
        self.flush()
        self.event(h2.events.PingAckReceived)

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Read until an event is `wanted`."""
        while True:
            for event in self.events:
                if wanted(event):
                    self.events.remove(event)
                    return event
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the connection ended")
            self.events += self.h2.receive_data(data)
            self.flush()

    def event(self, kind: type, stream: int | None = None) -> Any:
        return self.until(
            lambda event: isinstance(event, kind) and (stream is None or getattr(event, "stream_id", None) == stream)
        )


def connect(gateway: RunningGateway) -> Peer:
    return Peer(socket.create_connection(("127.0.0.1", gateway.plain_port), 5))


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


@pytest.mark.parametrize(
    "field",
    [
        ("Upper-Case", "x"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("x-injected", "a\r\nflight-from: root"),
        ("x-nul", "a\x00b"),
        ("x-space", " leading"),
        ("bad name", "x"),
        ("", "x"),
        (":late", "pseudo"),
        ("host", "another"),
    ],
    ids=lambda field: repr(field[0]),
)
def test_a_bad_field_costs_its_stream_and_reaches_no_agent(
    agent: RawAgent, start_gateway: StartGateway, field: tuple[str, str]
) -> None:
    gateway = start_gateway([member(agent.port)])
    peer = connect(gateway)
    bad = peer.request([*HEADERS, field])
    assert peer.event(h2.events.StreamReset, bad).error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert agent.received == []
    good = peer.request(HEADERS)
    assert dict(peer.event(h2.events.ResponseReceived, good).headers)[":status"] == "200"


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "GET"), (":scheme", "http"), (":path", "/a b"), (":authority", "g")],
        [(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "g")],
        [(":method", "GE T"), (":scheme", "http"), (":path", "/"), (":authority", "g")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/ HTTP/1.1\r\nx: y"), (":authority", "g")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "g\r\nx: y")],
        [(":method", "GET"), (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "g")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/")],
        [
            (":method", "CONNECT"),
            (":protocol", "websocket\r\n\r\nGET /second HTTP/1.1"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "g"),
        ],
    ],
)
def test_no_pseudo_header_can_become_a_second_request(
    agent: RawAgent, start_gateway: StartGateway, headers: list[tuple[str, str]]
) -> None:
    gateway = start_gateway([member(agent.port)])
    peer = connect(gateway)
    stream = peer.request([*headers, ("flight-capability", "code.execute")])
    peer.event(h2.events.StreamReset, stream)
    assert agent.received == []


def test_no_length_can_end_a_message_elsewhere_than_its_stream(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    for lengths in (["3", "0"], ["3", "3"], ["+3"], ["0_3"], [""], ["3, 3"], ["0x3"]):
        peer = connect(gateway)
        # A stream error or a connection error, as the gateway likes (RFC 9113 section 8.1.1).
        with contextlib.suppress(EOFError, ConnectionError):
            stream = peer.request([*HEADERS, *(("content-length", length) for length in lengths)], ended=False)
            peer.h2.send_data(stream, b"job", end_stream=True)
            peer.flush()
            event = peer.until(lambda event: isinstance(event, (h2.events.ResponseReceived, h2.events.StreamReset)))
            assert isinstance(event, h2.events.StreamReset), lengths
        peer.socket.close()
    assert not any(data.endswith(b"job") for data in agent.received)


def test_a_message_that_ends_short_of_its_length_takes_nothing_from_the_next(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])
    peer = connect(gateway)
    at_once = peer.request([*HEADERS, ("content-length", "5")])
    assert peer.event(h2.events.StreamReset, at_once).error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert agent.received == []
    by_trailers = peer.request([*HEADERS, ("content-length", "5")], ended=False)
    peer.h2.send_headers(by_trailers, [("x-sum", "0")], end_stream=True)
    peer.flush()
    # The agent's answer may have come before the trailers: it is told of the end, or its connection is closed.
    peer.until(lambda event: isinstance(event, (h2.events.StreamReset, h2.events.StreamEnded)))
    good = peer.request([*HEADERS, ("x-number", "three")])
    assert dict(peer.event(h2.events.ResponseReceived, good).headers)[":status"] == "200"
    assert agent.received[-1].startswith(b"POST /run HTTP/1.1\r\n")
    assert b"x-number: three" in agent.received[-1]
    assert agent.connections == len(agent.received)


def test_nothing_goes_into_a_tunnel_before_the_agent_has_agreed_to_it(raw_agent, start_gateway: StartGateway) -> None:
    def refuses(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            agent.received.append(connection.recv(1000))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        while piece := connection.recv(1000):
            agent.received.append(piece)

    agent = raw_agent(refuses)
    gateway = start_gateway([member(agent.port)])
    peer = connect(gateway)
    pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), *HEADERS[1:]]
    stream = peer.request([*pseudo, ("sec-websocket-version", "13")], ended=False)
    peer.h2.send_data(stream, b"GET /smuggled HTTP/1.1\r\nhost: agent\r\n\r\n")
    peer.flush()
    assert dict(peer.event(h2.events.ResponseReceived, stream).headers)[":status"] == "403"
    gateway.handoff(status=403)
    assert not any(b"smuggled" in data for data in agent.received)


def test_a_reset_stream_cancels_its_upstream_request(raw_agent, start_gateway: StartGateway) -> None:
    ended: list[bytes] = []

    def waits(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        try:
            ended.append(connection.recv(1))
        except OSError:
            ended.append(b"reset")

    gateway = start_gateway([member(raw_agent(waits).port)])
    peer = connect(gateway)
    stream = peer.request(HEADERS)
    peer.event(h2.events.DataReceived, stream)
    peer.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    peer.flush()
    assert gateway.handoff(outcome="cancelled")["status"] == 200
    assert eventually(lambda: ended) in ([b""], [b"reset"])


def test_a_slow_reader_holds_the_agent_back_instead_of_filling_memory(raw_agent, start_gateway: StartGateway) -> None:
    sent: list[int] = [0]
    piece = b"x" * 65536

    def floods(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
        while True:
            sent[0] += connection.send(piece)

    gateway = start_gateway([member(raw_agent(floods).port)])
    before = gateway.rss_bytes()
    peer = connect(gateway)
    peer.request(HEADERS)
    peer.event(h2.events.ResponseReceived)
    # The window that HTTP/2 starts with is all that we give: the agent must come to a stop.
    seen = -1
    deadline = time.monotonic() + 10
    while seen != sent[0] and time.monotonic() < deadline:
        seen = sent[0]
        time.sleep(0.3)
    assert sent[0] == seen
    assert sent[0] < 32 * 1024 * 1024
    assert gateway.rss_bytes() - before < 16 * 1024 * 1024


def test_a_slow_agent_holds_the_caller_back(raw_agent, start_gateway: StartGateway) -> None:
    def never_reads(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.settimeout(None)
        time.sleep(30)

    gateway = start_gateway([member(raw_agent(never_reads).port)])
    peer = connect(gateway)
    stream = peer.request([*HEADERS, ("content-length", "1073741824")], ended=False)
    sent = 0
    peer.socket.settimeout(1.0)
    while True:
        window = min(peer.h2.local_flow_control_window(stream), peer.h2.max_outbound_frame_size)
        if window:
            peer.h2.send_data(stream, b"x" * window)
            sent += window
            peer.flush()
            continue
        try:
            peer.until(lambda event: isinstance(event, h2.events.WindowUpdated))
        except TimeoutError:
            break
    assert sent < 64 * 1024 * 1024


def test_one_connection_carries_streams_side_by_side(raw_agent, start_gateway: StartGateway) -> None:
    others_first = threading.Event()

    def slow_first(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            head = agent.read_head(connection)
            if b"/slow" in head:
                others_first.wait(10)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    gateway = start_gateway([member(raw_agent(slow_first).port)])
    peer = connect(gateway)
    slow = peer.request([(name, "/slow" if name == ":path" else value) for name, value in HEADERS])
    quick = peer.request(HEADERS)
    assert peer.event(h2.events.ResponseReceived).stream_id == quick
    others_first.set()
    assert peer.event(h2.events.ResponseReceived).stream_id == slow


def h2_agent(script: Callable[[Peer, RawAgent], None]) -> Callable[[RawAgent, socket.socket], None]:
    """An h2c agent that follows `script`."""

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        script(Peer(connection, client=False), agent)

    return serve


def test_refused_stream_is_tried_on_another_agent(raw_agent, start_gateway: StartGateway) -> None:
    def refuses(peer: Peer, agent: RawAgent) -> None:
        while True:
            stream = peer.event(h2.events.RequestReceived).stream_id
            agent.received.append(b"refused")
            peer.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            peer.flush()

    refusing = raw_agent(h2_agent(refuses))
    willing = raw_agent(answer_each)
    gateway = start_gateway([member(refusing.port, "refusing", protocol="h2c"), member(willing.port, "willing")])
    with gateway.client() as client:
        for number in range(20):
            response = client.post(
                "/run", headers={"flight-capability": "code.execute", "flight-conversation": f'"c{number}"'}
            )
            assert response.status_code == 200
            assert response.headers["flight-agent"] == '"willing"'
    assert refusing.received
    assert gateway.handoff(attempts=2)["agent"] == "willing"


def test_goaway_lets_open_streams_finish_and_new_ones_go_elsewhere(raw_agent, start_gateway: StartGateway) -> None:
    def goes(peer: Peer, agent: RawAgent) -> None:
        stream = peer.event(h2.events.RequestReceived).stream_id
        agent.received.append(b"request")
        # GOAWAY naming this stream as the last, then its answer.
        peer.socket.sendall(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + stream.to_bytes(4, "big") + bytes(4))
        time.sleep(0.2)
        peer.h2.send_headers(stream, [(":status", "200")])
        peer.h2.send_data(stream, b"whole", end_stream=True)
        peer.flush()
        peer.socket.recv(100)

    agent = raw_agent(h2_agent(goes))
    gateway = start_gateway([member(agent.port, protocol="h2c")])
    with gateway.client() as client:
        for _ in range(2):
            response = client.post("/run", headers={"flight-capability": "code.execute"})
            assert response.text == "whole"
    assert agent.connections == 2


def test_sigterm_finishes_what_is_in_flight(raw_agent, start_gateway: StartGateway) -> None:
    drains = threading.Event()

    def slow(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        drains.wait(10)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole")

    agent = raw_agent(slow)
    gateway = start_gateway([member(agent.port)])
    peer = connect(gateway)
    stream = peer.request(HEADERS)
    eventually(lambda: agent.received)
    gateway.process.terminate()
    eventually(lambda: "draining for at most" in gateway.log())
    drains.set()
    assert dict(peer.event(h2.events.ResponseReceived, stream).headers)[":status"] == "200"
    assert peer.event(h2.events.DataReceived, stream).data == b"whole"
    assert gateway.process.wait(10) == 0


def test_an_answer_before_the_request_s_end_is_whole_and_a_bounded_rest_of_the_request_is_taken(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])
    peer = connect(gateway)
    stream = peer.request([*HEADERS, ("content-length", "50000000")], ended=False)
    peer.h2.send_data(stream, b"x" * 16384)
    peer.flush()
    assert peer.event(h2.events.DataReceived, stream).data == b"ok"
    peer.event(h2.events.StreamEnded, stream)
    sent = 16384
    while not any(isinstance(event, h2.events.StreamReset) for event in peer.events):
        window = min(peer.h2.local_flow_control_window(stream), peer.h2.max_outbound_frame_size)
        if window:
            peer.h2.send_data(stream, b"x" * window)
            peer.flush()
            sent += window
        else:
            peer.until(lambda event: isinstance(event, h2.events.WindowUpdated | h2.events.StreamReset))
            if peer.h2.streams[stream].closed:
                break
    assert 1_000_000 < sent < 2_000_000
    assert gateway.handoff(status=200)["outcome"] == "completed"


@pytest.mark.parametrize("http2", [True, False])
def test_a_client_that_is_still_sending_when_it_is_refused_reads_why(
    agent: RawAgent, start_gateway: StartGateway, http2: bool
) -> None:
    gateway = start_gateway([member(agent.port)])
    with gateway.client("mallory", http2=http2) as client:
        for _ in range(10):
            response = client.post("/run", headers={"flight-capability": "code.execute"}, content=b"x" * 400_000)
            assert response.json()["type"] == "urn:phoenixflight:denied-by-policy"


def test_pseudo_fields_in_trailers_are_a_stream_error_and_the_body_is_never_whole(
    raw_agent, start_gateway: StartGateway
) -> None:
    def reads_all(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        while piece := connection.recv(1000):
            agent.received.append(piece)

    agent = raw_agent(reads_all)
    gateway = start_gateway([member(agent.port)])
    peer = connect(gateway)
    stream = peer.request(HEADERS, ended=False)
    peer.h2.send_data(stream, b"body")
    peer.h2.send_headers(stream, [(":method", "GET")], end_stream=True)
    peer.flush()
    assert peer.event(h2.events.StreamReset, stream).error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR
    gateway.handoff(outcome="cancelled")
    assert b"0\r\n\r\n" not in b"".join(agent.received)
