"""HTTP/1.1 through real sockets: framing, smuggling, pipelining, interim answers, endings."""

from __future__ import annotations

import socket

import pytest

from tests.conftest import RawAgent, RunningGateway, StartGateway, member
from tests.waiting import eventually

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer_each(agent: RawAgent, connection: socket.socket) -> None:
    while True:
        agent.read_head(connection)
        connection.sendall(OK)


def talk(gateway: RunningGateway, request: bytes, timeout_s: float = 5.0) -> bytes:
    """Send `request` in one piece and read until the gateway closes or is silent for a moment."""
    with socket.create_connection(("127.0.0.1", gateway.plain_port), timeout_s) as connection:
        connection.sendall(request)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
                connection.settimeout(1.0)
        except TimeoutError:
            received += b"<still open>"
        return received


HEAD = b"POST /run HTTP/1.1\r\nhost: gateway\r\nflight-capability: code.execute\r\n"

AMBIGUOUS = {
    "both lengths": HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "lengths in the other order": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
    "a list of lengths": HEAD + b"content-length: 4, 4\r\n\r\nabcd",
    "a signed length": HEAD + b"content-length: +4\r\n\r\nabcd",
    "a hexadecimal length": HEAD + b"content-length: 0x4\r\n\r\nabcd",
    "a bad chunk size": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a chunk ended by LF": HEAD + b"transfer-encoding: chunked\r\n\r\n4\nabcd\r\n0\r\n\r\n",
    "a chunk longer than it says": HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "a coding that is not chunked": HEAD + b"transfer-encoding: identity\r\n\r\nabcd",
    "chunked not last": HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked with another": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /run HTTP/1.0\r\nhost: g\r\nflight-capability: code.execute\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare LF in the head": b"POST /run HTTP/1.1\r\nhost: gateway\nflight-capability: code.execute\r\n\r\n",
    "bare LFs throughout": b"POST /run HTTP/1.1\nhost: gateway\nflight-capability: code.execute\n\n",
    "a bare CR in a value": HEAD + b"x: a\rb\r\n\r\n",
    "a NUL in a value": HEAD + b"x: a\x00b\r\n\r\n",
    "obs-fold": HEAD + b"x: a\r\n b\r\n\r\n",
    "a space before the colon": HEAD + b"content-length : 0\r\n\r\n",
    "a space in front of the first field": b"POST /run HTTP/1.1\r\n host: gateway\r\n\r\n",
    "two Hosts": HEAD + b"host: other\r\n\r\n",
    "a Host that is none": b"GET /run HTTP/1.1\r\nhost: a/b c\r\nflight-capability: code.execute\r\n\r\n",
    "no Host": b"GET /run HTTP/1.1\r\nflight-capability: code.execute\r\n\r\n",
    "a lower-case method": b"get /run HTTP/1.1\r\nhost: gateway\r\nflight-capability: code.execute\r\n\r\n",
    "an unknown version": b"GET /run HTTP/1.2\r\nhost: gateway\r\nflight-capability: code.execute\r\n\r\n",
    "a control character in the target": b"GET /a\x01b HTTP/1.1\r\nhost: gateway\r\n\r\n",
    "credentials in the target": b"GET http://u:p@gateway/run HTTP/1.1\r\nhost: gateway\r\n\r\n",
    "another scheme": b"GET ftp://gateway/run HTTP/1.1\r\nhost: gateway\r\n\r\n",
}


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


def test_ambiguous_framing_is_answered_400_and_closed_and_reaches_no_agent(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: gateway\r\nflight-capability: code.execute\r\n\r\n"
    for name, request in AMBIGUOUS.items():
        received = talk(gateway, request + smuggled)
        assert received.startswith(b"HTTP/1.1 400 "), (name, received)
        assert received.count(b"HTTP/1.1 ") == 1, (name, received)
        assert b"urn:phoenixflight:malformed-packet" in received, name
        assert not received.endswith(b"<still open>"), name
    assert not any(b"smuggled" in data for data in agent.received)
    # A broken body may have begun its way (its head was sound), but never as a whole message.
    for data in agent.received:
        assert b"transfer-encoding: chunked" in data
        assert b"\r\n0\r\n\r\n" not in data


def test_pipelined_requests_are_answered_in_order(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    requests = b"".join(
        b'GET /%d HTTP/1.1\r\nhost: gateway\r\nflight-capability: code.execute\r\nflight-id: "p%d"\r\n\r\n'
        % (number, number)
        for number in range(3)
    )
    received = talk(gateway, requests)
    at = [received.index(b'flight-id: "p%d"' % number) for number in range(3)]
    assert at == sorted(at)
    assert received.count(b"HTTP/1.1 200 OK") == 3


def test_the_last_of_pipelined_requests_may_ask_to_close(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    request = b"GET /run HTTP/1.1\r\nhost: gateway\r\nflight-capability: code.execute\r\n"
    received = talk(gateway, request + b"\r\n" + request + b"\r\n" + request + b"connection: close\r\n\r\n")
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.count(b"connection: close") == 1
    assert not received.endswith(b"<still open>")


def test_a_header_section_over_its_limit_is_431(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)], limits={"maxHeaderBytes": 4096})
    received = talk(gateway, HEAD + b"x: " + b"a" * 8000 + b"\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 431 ")
    assert b"urn:phoenixflight:headers-too-large" in received
    assert agent.received == []


def test_interim_answers_and_trailers_pass_through(raw_agent, start_gateway: StartGateway) -> None:
    def hints(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </style>\r\n\r\n")
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"
        )

    gateway = start_gateway([member(raw_agent(hints).port)])
    received = talk(gateway, HEAD + b"content-length: 0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </style>\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert b"2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n" in received


def test_100_continue_comes_from_the_agent(raw_agent, start_gateway: StartGateway) -> None:
    def asks(agent: RawAgent, connection: socket.socket) -> None:
        head = agent.read_head(connection)
        assert b"expect: 100-continue" in head
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        agent.received.append(connection.recv(100))
        connection.sendall(OK)

    agent = raw_agent(asks)
    gateway = start_gateway([member(agent.port)])
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:
        connection.sendall(HEAD + b"content-length: 4\r\nexpect: 100-continue\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(b"body")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert agent.received[-1] == b"body"


def test_an_upgrade_that_is_not_taken_is_served_as_if_it_were_not_there(raw_agent, start_gateway: StartGateway) -> None:
    def echo(agent: RawAgent, connection: socket.socket) -> None:
        data = agent.read_head(connection)
        while not data.endswith(b"second"):
            piece = connection.recv(1000)
            if not piece:
                break
            agent.received.append(piece)
            data += piece
        connection.sendall(OK)

    agent = raw_agent(echo)
    gateway = start_gateway([member(agent.port)])
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:
        connection.sendall(
            HEAD + b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
            b"content-length: 11\r\n\r\nfirst"
        )
        connection.sendall(b"second")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    whole = b"".join(agent.received)
    assert whole.endswith(b"firstsecond")
    assert b"upgrade" not in whole


def test_a_cut_answer_never_looks_whole(raw_agent, start_gateway: StartGateway) -> None:
    def cuts(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n")

    gateway = start_gateway([member(raw_agent(cuts).port)])
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:
        connection.sendall(HEAD + b"content-length: 0\r\n\r\n")
        received = b""
        with pytest.raises(ConnectionResetError):
            while piece := connection.recv(1000):
                received += piece
        assert not received.endswith(b"0\r\n\r\n")
    assert gateway.handoff(outcome="failed")["reason"] == "upstream-reset"


def test_an_agent_that_breaks_off_before_answering_is_502(raw_agent, start_gateway: StartGateway) -> None:
    def silent(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)

    gateway = start_gateway([member(raw_agent(silent).port)])
    received = talk(gateway, HEAD + b"content-length: 0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 502 ")
    assert b"urn:phoenixflight:upstream-reset" in received


def test_an_answer_that_is_not_http_is_502(raw_agent, start_gateway: StartGateway) -> None:
    def babble(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n")
        connection.recv(1)

    gateway = start_gateway([member(raw_agent(babble).port)])
    received = talk(gateway, HEAD + b"content-length: 0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 502 ")
    assert b"urn:phoenixflight:upstream-malformed" in received


def test_a_caller_that_goes_away_cancels_its_upstream_work_at_once(raw_agent, start_gateway: StartGateway) -> None:
    ended: list[bytes] = []

    def waits(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        try:
            ended.append(connection.recv(1))
        except OSError:
            ended.append(b"reset")

    gateway = start_gateway([member(raw_agent(waits).port)])
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:
        connection.sendall(HEAD + b"content-length: 0\r\n\r\n")
        assert b"200 OK" in connection.recv(1000)
    gateway.handoff(outcome="cancelled")
    assert eventually(lambda: ended) in ([b""], [b"reset"])
    gateway.client().close()


def test_head_and_204_and_304_have_no_body_and_keep_the_connection(raw_agent, start_gateway: StartGateway) -> None:
    def bodiless(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            head = agent.read_head(connection)
            if head.startswith(b"HEAD"):
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n")
            elif b"/204" in head:
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                connection.sendall(b'HTTP/1.1 304 Not Modified\r\netag: "x"\r\n\r\n')

    agent = raw_agent(bodiless)
    gateway = start_gateway([member(agent.port)])
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:
        for target, wanted in ((b"HEAD /x", b"200"), (b"GET /204", b"204"), (b"GET /304", b"304")) * 2:
            connection.sendall(target + b" HTTP/1.1\r\nhost: g\r\nflight-capability: code.execute\r\n\r\n")
            received = connection.recv(2000)
            assert received.startswith(b"HTTP/1.1 " + wanted)
            assert received.endswith(b"\r\n\r\n")
    assert agent.connections == 1


def test_spoofable_headers_never_reach_the_agent(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    talk(
        gateway,
        HEAD + b'flight-from: "spiffe://mesh.local/ns/admin/sa/root"\r\nFlight_From: x\r\nflight-lineage: "a"\r\n'
        b"x-forwarded-for: 1.2.3.4\r\nX-Forwarded-Client-Cert: By=x\r\nforwarded: for=1.2.3.4\r\nx-real-ip: 1.2.3.4\r\n"
        b"x_forwarded_for: 1.2.3.4\r\nx-custom: stays\r\ncontent-length: 0\r\n\r\n",
    )
    (head,) = agent.received
    lines = head.lower().split(b"\r\n")
    assert [line for line in lines if b"flight-from" in line] == [
        b'flight-from: "spiffe://mesh.local/ns/agents/sa/local"'
    ]
    for name in (b"flight_from", b"lineage", b"forwarded", b"x-real-ip", b"x_forwarded"):
        assert not any(name in line for line in lines), name
    assert b"x-custom: stays" in lines
