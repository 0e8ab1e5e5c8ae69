"""The clocks of an exchange, through real sockets: who is too slow is told so, and what is live lives on."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable

import h2.events
import pytest

from tests.conformance.beside import beside
from tests.conformance.test_http1 import HEAD, OK
from tests.conformance.test_http2 import HEADERS, connect
from tests.conftest import RawAgent, RunningGateway, StartGateway, member

MakeAgent = Callable[[Callable[[RawAgent, socket.socket], None]], RawAgent]
LONGEST_S = 10
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def serve_polite(agent: RawAgent, connection: socket.socket) -> None:
    """Answer those who are `beside`, up to the head of another request."""
    while b" /polite " in agent.read_head(connection):
        connection.sendall(OK)


def answering(*pieces: bytes) -> Callable[[RawAgent, socket.socket], None]:
    """An agent that sends `pieces`, and then nothing, until the gateway lets go."""

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        serve_polite(agent, connection)
        for piece in pieces:
            connection.sendall(piece)
        while connection.recv(65536):
            pass

    return serve


class Caller:
    """An HTTP/1.1 caller who sends what it is told, and reads to the end."""

    def __init__(self, gateway: RunningGateway, data: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", gateway.plain_port), LONGEST_S)
        self.socket.sendall(data)
        self.began = time.monotonic()

    def rest(self) -> bytes:
        """All until the gateway closes."""
        received = b""
        with self.socket:
            while piece := self.socket.recv(65536):
                received += piece
        return received

    def more(self, data: bytes) -> None:
        self.socket.sendall(data)


def reason(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), str(json.loads(body)["type"]).removeprefix("urn:phoenixflight:")


def test_a_body_that_stops_is_told_408(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(answering()).port)], limits={"bodyTimeout": "1s"})
    with beside(gateway):
        caller = Caller(gateway, HEAD + b"content-length: 10\r\n\r\nabc")
        assert reason(caller.rest()) == (408, "request-timeout")
        assert gateway.handoff(reason="request-timeout")["bytes_in"] == 3
        peer = connect(gateway)
        peer.socket.settimeout(LONGEST_S)
        stream = peer.request(HEADERS, ended=False)
        assert dict(peer.event(h2.events.ResponseReceived, stream).headers)[":status"] == "408"
        peer.socket.close()


def test_a_body_that_trickles_is_told_408(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(answering()).port)], limits={"bodyTimeout": "1s", "minBodyRate": 1000})
    caller = Caller(gateway, HEAD + b"transfer-encoding: chunked\r\n\r\n")
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.1):
            try:
                caller.more(chunk(b"x"))
            except OSError:
                return

    trickling = threading.Thread(target=trickle)
    trickling.start()
    try:
        with beside(gateway):
            assert caller.socket.recv(65536).startswith(b"HTTP/1.1 408 ")
    finally:
        stop.set()
        trickling.join()
        caller.socket.close()
    assert "1000 bytes a second" in str(gateway.handoff(reason="request-timeout")["detail"])


def test_an_agent_that_does_not_answer_is_a_504(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(answering()).port)], limits={"responseTimeout": "1s"})
    with beside(gateway):
        answer = Caller(gateway, HEAD + b"connection: close\r\ncontent-length: 0\r\n\r\n").rest()
    assert reason(answer) == (504, "deadline-exceeded")


def test_an_agent_that_takes_none_of_a_body_is_a_504(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    over = threading.Event()

    def deaf(agent: RawAgent, connection: socket.socket) -> None:
        serve_polite(agent, connection)
        over.wait(LONGEST_S)

    gateway = start_gateway([member(raw_agent(deaf).port)], limits={"responseTimeout": "1s", "bodyTimeout": "1s"})
    caller = Caller(gateway, HEAD + b"content-length: 100000000\r\n\r\n")

    def send() -> None:
        with contextlib.suppress(OSError):
            caller.more(bytes(100_000_000))

    sending = threading.Thread(target=send)
    sending.start()
    with beside(gateway):
        assert caller.socket.recv(65536).startswith(b"HTTP/1.1 504 ")
    over.set()
    caller.socket.shutdown(socket.SHUT_RDWR)
    sending.join()
    caller.socket.close()


def test_a_silent_event_stream_ends_with_an_error_event(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    agent = raw_agent(answering(SSE, chunk(b"data: 1\n\n")))
    gateway = start_gateway([member(agent.port)], limits={"streamIdleTimeout": "1s"})
    with beside(gateway):
        answer = Caller(gateway, HEAD + b"connection: close\r\ncontent-length: 0\r\n\r\n").rest()
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert b"data: 1\n\n" in answer
    assert b'event: error\ndata: {"type":"urn:phoenixflight:deadline-exceeded"' in answer
    logged = gateway.handoff(outcome="failed")
    assert (logged["reason"], logged["status"]) == ("deadline-exceeded", 200)


def test_a_silent_grpc_call_ends_with_a_status(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    head = SSE.replace(b"text/event-stream", b"application/grpc")
    gateway = start_gateway([member(raw_agent(answering(head)).port)], limits={"streamIdleTimeout": "1s"})
    peer = connect(gateway)
    peer.socket.settimeout(LONGEST_S)
    stream = peer.request([*HEADERS, ("content-type", "application/grpc"), ("te", "trailers")], ended=False)
    trailers = dict(peer.event(h2.events.TrailersReceived, stream).headers)
    assert trailers["grpc-status"] == "4"
    assert trailers["grpc-message"].startswith("urn:phoenixflight:deadline-exceeded")


def test_a_silent_plain_body_is_reset(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    agent = raw_agent(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"))
    gateway = start_gateway([member(agent.port)], limits={"streamIdleTimeout": "1s"})
    with beside(gateway), pytest.raises(ConnectionResetError):
        Caller(gateway, HEAD + b"content-length: 0\r\n\r\n").rest()
    peer = connect(gateway)
    peer.socket.settimeout(LONGEST_S)
    peer.event(h2.events.StreamReset, peer.request(HEADERS))


def test_a_live_stream_outlives_the_clock_for_silence(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    def lively(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(SSE)
        for number in range(10):
            connection.sendall(chunk(b"data: %d\n\n" % number))
            time.sleep(0.4)
        connection.sendall(b"0\r\n\r\n")

    gateway = start_gateway([member(raw_agent(lively).port)], limits={"streamIdleTimeout": "2s"})
    answer = Caller(gateway, HEAD + b"connection: close\r\ncontent-length: 0\r\n\r\n").rest()
    assert b"data: 9\n\n" in answer
    assert b"error" not in answer


def test_a_ceiling_ends_a_live_stream(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    def lively(agent: RawAgent, connection: socket.socket) -> None:
        serve_polite(agent, connection)
        connection.sendall(SSE)
        while True:
            connection.sendall(chunk(b"data: x\n\n"))
            time.sleep(0.1)

    gateway = start_gateway([member(raw_agent(lively).port)], limits={"maxStreamDuration": "1s"})
    with beside(gateway):
        answer = Caller(gateway, HEAD + b"connection: close\r\ncontent-length: 0\r\n\r\n").rest()
    assert b"event: error\n" in answer


def test_readers_of_a_silent_event_stream_get_comments(raw_agent: MakeAgent, start_gateway: StartGateway) -> None:
    def quiet(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(SSE + chunk(b"data: 1\n\n"))
        told.wait(LONGEST_S)
        connection.sendall(chunk(b"data: 2\n\n") + b"0\r\n\r\n")

    told = threading.Event()
    gateway = start_gateway([member(raw_agent(quiet).port)], limits={"sseKeepAlive": "1s"})
    with gateway.client() as client, client.stream("GET", "/", headers={"flight-capability": "code.execute"}) as answer:
        body = b""
        for piece in answer.iter_raw():
            body += piece
            if b"\n:\n" in body:
                told.set()
    assert body.replace(b":\n", b"") == b"data: 1\n\ndata: 2\n\n"
    assert gateway.handoff(outcome="completed")["bytes_out"] == 18


@pytest.mark.parametrize(
    "head", [b"content-length: 11\r\n\r\n", b"transfer-encoding: chunked\r\n\r\nb\r\nabcdefghijk\r\n"]
)
def test_a_body_over_the_bound_is_told_413(raw_agent: MakeAgent, start_gateway: StartGateway, head: bytes) -> None:
    agent = raw_agent(answering())
    gateway = start_gateway([member(agent.port)], limits={"maxBodyBytes": 10})
    with beside(gateway):
        assert reason(Caller(gateway, HEAD + head).rest()) == (413, "body-too-large")
    assert b"abcdefghijk" not in b"".join(agent.received)
