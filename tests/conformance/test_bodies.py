"""Bodies held against what their heads say of them: digests while they stream, envelopes when they are whole."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import h2.errors
import h2.events
import pytest

from gateway.packet.digest import content_digest
from gateway.packet.envelope import MAX_BYTES, validate
from gateway.packet.modes import to_structured
from tests.conformance.test_http1 import HEAD, talk
from tests.conformance.test_http2 import HEADERS, Peer, connect
from tests.conformance.trust import bodies, refusal, take_messages
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, member
from tests.waiting import eventually

BODY = bytes(range(256)) * 12
PIECE = 1000


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(take_messages)


def messages(gateway: RunningGateway, agent: RawAgent) -> list[bytes]:
    """The bodies of all whole requests that `agent` got, which is known when the gateway has stopped."""
    gateway.stop()
    eventually(lambda: len(agent.received) == agent.connections)
    return [body for stream in agent.received for body in bodies(stream)]


def pieces(body: bytes) -> list[bytes]:
    return [body[at : at + PIECE] for at in range(0, len(body), PIECE)]


# -- the ways that a body takes, each giving the status and the answer's body --------------------------------


def _http1(gateway: RunningGateway, head: bytes, rest: bytes) -> tuple[int, bytes]:
    answer = talk(gateway, HEAD + b"connection: close\r\n" + head + b"\r\n\r\n" + rest)
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def with_length(gateway: RunningGateway, digest: bytes, body: bytes) -> tuple[int, bytes]:
    return _http1(gateway, b"content-digest: %s\r\ncontent-length: %d" % (digest, len(body)), body)


def chunked(gateway: RunningGateway, digest: bytes, body: bytes) -> tuple[int, bytes]:
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces(body), b""]]
    return _http1(gateway, b"content-digest: %s\r\ntransfer-encoding: chunked" % digest, b"".join(chunks))


def slowly(gateway: RunningGateway, digest: bytes, body: bytes) -> tuple[int, bytes]:
    """Each piece is sent when the last one has surely been read."""
    head = HEAD + b"connection: close\r\ncontent-digest: %s\r\ncontent-length: %d\r\n\r\n" % (digest, len(body))
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [head, *pieces(body)]:
            connection.sendall(piece)
            gateway.admin("/healthz")
        answer = b""
        while more := connection.recv(65536):
            answer += more
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def _http2(gateway: RunningGateway, fields: list[tuple[str, str]], frames: list[bytes]) -> tuple[int, bytes]:
    peer = connect(gateway)
    stream = peer.request([*HEADERS, *fields], ended=not frames)
    for number, frame in enumerate(frames, 1):
        peer.h2.send_data(stream, frame, end_stream=number == len(frames))
    peer.flush()
    head = dict(peer.event(h2.events.ResponseReceived, stream).headers)
    answer = peer.event(h2.events.DataReceived, stream).data
    peer.socket.close()
    return int(head[":status"]), answer


def _fields(digest: bytes, body: bytes) -> list[tuple[str, str]]:
    return [("content-digest", digest.decode()), ("content-length", str(len(body)))]


def by_http2(gateway: RunningGateway, digest: bytes, body: bytes) -> tuple[int, bytes]:
    return _http2(gateway, _fields(digest, body), pieces(body))


def by_http2_and_an_empty_last_frame(gateway: RunningGateway, digest: bytes, body: bytes) -> tuple[int, bytes]:
    return _http2(gateway, _fields(digest, body), [*pieces(body), b""])


def by_http2_without_a_length(gateway: RunningGateway, digest: bytes, body: bytes) -> tuple[int, bytes]:
    return _http2(gateway, _fields(digest, body)[:1], [*pieces(body), b""])


WAYS: list[Callable[[RunningGateway, bytes, bytes], tuple[int, bytes]]] = [
    with_length,
    chunked,
    slowly,
    by_http2,
    by_http2_and_an_empty_last_frame,
    by_http2_without_a_length,
]


# -- digests --------------------------------------------------------------------------------------------------


def test_a_body_that_matches_its_digest_arrives_as_it_was_sent(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    sent = [BODY, b"", b"x"]
    for way in WAYS:
        for body in sent:
            assert way(gateway, content_digest(body), body) == (200, b"ok"), (way.__name__, len(body))
    assert sorted(messages(gateway, agent)) == sorted(sent * len(WAYS))


def test_a_tampered_body_is_refused_and_never_reaches_an_agent_whole(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])
    for way in WAYS:
        for meant, sent in ((BODY, BODY[:-1] + b"!"), (b"", b"x"), (b"x", b"")):
            status, answer = way(gateway, content_digest(meant), sent)
            assert status == 400, (way.__name__, len(sent))
            assert b"content-digest: the body is not the one it was made of" in answer, (way.__name__, len(sent))
    assert messages(gateway, agent) == []


def test_an_empty_body_that_was_none_reaches_no_agent(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    peer = connect(gateway)
    digest = content_digest(b"job").decode()
    # A length of 0 makes the head a whole message; its caller may take its time to end it.
    stream = peer.request([*HEADERS, ("content-digest", digest), ("content-length", "0")], ended=False)
    assert dict(peer.event(h2.events.ResponseReceived, stream).headers)[":status"] == "400"
    assert messages(gateway, agent) == []


def test_an_http2_agent_of_a_tampered_body_sees_a_reset(raw_agent, start_gateway: StartGateway) -> None:
    begun, broken_off = threading.Event(), threading.Event()

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        peer = Peer(connection, client=False)
        peer.event(h2.events.RequestReceived)
        begun.set()
        peer.event(h2.events.StreamReset)
        assert not any(isinstance(event, h2.events.StreamEnded) for event in peer.events)
        broken_off.set()

    gateway = start_gateway([member(raw_agent(serve).port, protocol="h2c")])
    peer = connect(gateway)
    stream = peer.request([*HEADERS, *_fields(content_digest(b"another"), BODY)], ended=False)
    peer.h2.send_data(stream, BODY)
    peer.flush()
    assert begun.wait(5)
    peer.h2.end_stream(stream)
    peer.flush()
    assert dict(peer.event(h2.events.ResponseReceived, stream).headers)[":status"] == "400"
    assert broken_off.wait(5)


def test_an_answer_that_began_before_the_digest_failed_is_broken_off(raw_agent, start_gateway: StartGateway) -> None:
    def answer_at_once(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
        connection.recv(1)

    gateway = start_gateway([member(raw_agent(answer_at_once).port)])
    peer = connect(gateway)
    stream = peer.request([*HEADERS, ("content-digest", content_digest(b"another").decode())], ended=False)
    peer.h2.send_data(stream, b"job")
    peer.flush()
    assert peer.event(h2.events.DataReceived, stream).data == b"ok"
    peer.h2.end_stream(stream)
    peer.flush()
    assert peer.event(h2.events.StreamReset, stream).error_code == h2.errors.ErrorCodes.INTERNAL_ERROR
    logged = gateway.handoff(reason="malformed-packet")
    assert (logged["outcome"], logged["status"]) == ("failed", 200)


def test_a_digest_that_cannot_be_read_is_refused(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    for field in (b"sha-256=abc", b"sha-256=:AAAA:", b"sha-256", b"=:"):
        for way in (with_length, by_http2):
            status, answer = way(gateway, field, BODY)
            assert status == 400, (way.__name__, field)
            assert b"content-digest: " in answer, (way.__name__, field)
    assert messages(gateway, agent) == []


# -- envelopes ------------------------------------------------------------------------------------------------


def test_an_envelope_passes_unchanged_when_its_head_agrees(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    packet = {"specversion": "1.0", "id": "e-1", "capabilities": ["code.execute"], "data": {"z": 1, "a": "é"}}
    fields, body = to_structured(validate(packet))
    body = body.replace(b",", b" ,\n ")
    for http2 in (False, True):
        with gateway.client(http2=http2) as client:
            assert client.post("/run", headers=fields, content=body).status_code == 200
            for name, value in (("flight-id", '"e-2"'), ("flight-budget", "tokens=5"), ("flight-task", '"t"')):
                differing = {**{key.decode(): text.decode() for key, text in fields}, name: value}
                response = client.post("/run", headers=differing, content=body)
                assert refusal(response) == (400, "malformed-packet"), name
                assert name in response.json()["detail"]
    assert messages(gateway, agent) == [body, body]


def test_a_body_that_is_no_envelope_or_too_long_reaches_no_agent(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    headers = {**CAPABILITY, "content-type": "application/flightpacket+json; charset=utf-8"}
    for http2 in (False, True):
        with gateway.client(http2=http2) as client:
            for body in (b"", b"[]", b"{}", b"\xff", b'{"specversion": "1.0",'):
                response = client.post("/run", headers=headers, content=body)
                assert refusal(response) == (400, "malformed-packet"), body
            response = client.post("/run", headers=headers, content=b" " * (MAX_BYTES + 1))
            assert refusal(response) == (413, "body-too-large")
    assert messages(gateway, agent) == []
