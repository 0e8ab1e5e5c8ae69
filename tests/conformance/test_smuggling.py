"""Requests that two readers would read differently: an agent sees none of them, whichever protocol they come in by."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import h2.errors
import h2.events
import h2.exceptions
import pytest

from tests.conformance.test_http1 import OK
from tests.conformance.test_http2 import HEADERS, Peer
from tests.conftest import RawAgent, RunningGateway, launch, member

MARK = b"smuggled"
PACKET = b"host: gateway\r\nflight-capability: code.execute\r\n"
HEAD = b"POST /ambiguous HTTP/1.1\r\n" + PACKET
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
GET = b"GET /ambiguous HTTP/1.1\r\n" + PACKET
WEBSOCKET = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n"
SECOND = b"GET /smuggled HTTP/1.1\r\n" + PACKET + b"\r\n"

HTTP1 = {
    # Two lengths, of one kind or of two.
    "content-length before transfer-encoding": HEAD
    + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding before content-length": HEAD
    + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "content-length and an unknown coding": HEAD + b"transfer-encoding: x\r\ncontent-length: 4\r\n\r\nabcd",
    "content-length and identity": HEAD + b"transfer-encoding: identity\r\ncontent-length: 4\r\n\r\nabcd",
    "two content-lengths that differ": HEAD + b"content-length: 0\r\ncontent-length: 4\r\n\r\nabcd",
    "two content-lengths that agree": HEAD + b"content-length: 4\r\ncontent-length: 4\r\n\r\nabcd",
    "content-lengths in a list": HEAD + b"content-length: 4, 4\r\n\r\nabcd",
    "content-lengths in a list that differ": HEAD + b"content-length: 0, 4\r\n\r\nabcd",
    "content-length with a plus": HEAD + b"content-length: +4\r\n\r\nabcd",
    "content-length with a minus": HEAD + b"content-length: -4\r\n\r\nabcd",
    "content-length in hexadecimal": HEAD + b"content-length: 0x4\r\n\r\nabcd",
    "content-length with zeros in front": HEAD + b"content-length: 004\r\n\r\nabcd",
    "content-length with a fraction": HEAD + b"content-length: 4.0\r\n\r\nabcd",
    "content-length with an exponent": HEAD + b"content-length: 1e1\r\n\r\nabcd",
    "content-length with an underscore": HEAD + b"content-length: 1_0\r\n\r\nabcd",
    "content-length with a space within": HEAD + b"content-length: 1 0\r\n\r\nabcd",
    "content-length with a tab after it": HEAD + b"content-length: 4\t\r\n\r\nabcd",
    "content-length that overflows": HEAD + b"content-length: 18446744073709551620\r\n\r\nabcd",
    "content-length that is empty": HEAD + b"content-length:\r\n\r\nabcd",
    "content-length in other digits": HEAD + b"content-length: \xd9\xa4\r\n\r\nabcd",
    # Codings that one reader takes for chunked.
    "transfer-encoding twice": HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked, identity": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "transfer-encoding: gzip, chunked": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: ,chunked": HEAD + b"transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked,": HEAD + b"transfer-encoding: chunked,\r\n\r\n0\r\n\r\n",
    "transfer-encoding: xchunked": HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked;q=1": HEAD + b"transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    'transfer-encoding: "chunked"': HEAD + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "transfer-encoding with a tab after it": HEAD + b"transfer-encoding: chunked\t\r\n\r\n0\r\n\r\n",
    "transfer-encoding with a vertical tab": HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding with a NUL": HEAD + b"transfer-encoding: chunked\x00\r\n\r\n0\r\n\r\n",
    "transfer-encoding folded": HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding that is empty": HEAD + b"transfer-encoding:\r\n\r\n0\r\n\r\n",
    "transfer-encoding with a space before the colon": HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding with a tab before the colon": HEAD + b"transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding with a vertical tab in its name": HEAD + b"transfer-encoding\x0b: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding with another letter in its name": HEAD + b"transfer-encod\xefng: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding after a bare CR": HEAD + b"x: y\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding after a bare LF": HEAD + b"x: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding in HTTP/1.0": b"POST /ambiguous HTTP/1.0\r\n"
    + PACKET
    + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    # Chunks; the head may be on its way, but no end of a message may.
    "chunk size with a minus": CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
    "chunk size with a plus": CHUNKED + b"+1\r\nx\r\n0\r\n\r\n",
    "chunk size in 0x": CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
    "chunk size with a space in front": CHUNKED + b" 1\r\nx\r\n0\r\n\r\n",
    "chunk size with a space after it": CHUNKED + b"1 \r\nx\r\n0\r\n\r\n",
    "chunk size that overflows": CHUNKED + b"10000000000000001\r\nx\r\n0\r\n\r\n",
    "chunk size that is empty": CHUNKED + b"\r\nx\r\n0\r\n\r\n",
    "chunk size ended by LF": CHUNKED + b"1\nx\r\n0\r\n\r\n",
    "chunk size ended by CR": CHUNKED + b"1\rx\r\n0\r\n\r\n",
    "chunk extension ended by LF": CHUNKED + b"1;a\nx\r\n0\r\n\r\n",
    "chunk extension with a CR": CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "chunk extension with a quoted line end": CHUNKED + b'1;a="\r\n"\r\nx\r\n0\r\n\r\n',
    "chunk extension without a name": CHUNKED + b"1;\r\nx\r\n0\r\n\r\n",
    "chunk data longer than its size": CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "chunk data ended by LF": CHUNKED + b"1\r\nx\n0\r\n\r\n",
    "chunk data ended by nothing": CHUNKED + b"1\r\nx0\r\n\r\n",
    "last chunk ended by LF": CHUNKED + b"1\r\nx\r\n0\n\n",
    "content-length in the trailers": CHUNKED + b"0\r\ncontent-length: 9\r\n\r\n",
    "transfer-encoding in the trailers": CHUNKED + b"0\r\ntransfer-encoding: chunked\r\n\r\n",
    "a folded trailer": CHUNKED + b"0\r\nx: y\r\n z\r\n\r\n",
    # Where a head's lines end.
    "a bare LF after the request line": b"GET /ambiguous HTTP/1.1\n" + PACKET + b"\r\n",
    "a bare LF after a field": b"GET /ambiguous HTTP/1.1\r\nhost: gateway\nflight-capability: code.execute\r\n\r\n",
    "a bare LF for the empty line": GET + b"x: y\r\n\n",
    "two CRs before the LF": GET + b"x: y\r\r\n\r\n",
    "a bare CR for the empty line": GET + b"x: y\r\n\rGET",
    "a NUL in a value": GET + b"x: a\x00b\r\n\r\n",
    "a line folded": GET + b"x: y\r\n z\r\n\r\n",
    "a space in front of the first field": b"GET /ambiguous HTTP/1.1\r\n x: y\r\n" + PACKET + b"\r\n",
    "a field without a colon": GET + b"xyz\r\n\r\n",
    "a field without a name": GET + b": x\r\n\r\n",
    "a parenthesis in a name": GET + b"x(y: 1\r\n\r\n",
    # What is asked, of whom, and how.
    "two Hosts": GET + b"host: other\r\n\r\n",
    "no Host": b"GET /ambiguous HTTP/1.1\r\nflight-capability: code.execute\r\n\r\n",
    "an empty Host": b"GET /ambiguous HTTP/1.1\r\nhost:\r\nflight-capability: code.execute\r\n\r\n",
    "a Host with user information": b"GET /ambiguous HTTP/1.1\r\nhost: a@b\r\nflight-capability: code.execute\r\n\r\n",
    "a Host with a path": b"GET /ambiguous HTTP/1.1\r\nhost: a/b\r\nflight-capability: code.execute\r\n\r\n",
    "a Host with a port that is none": b"GET /ambiguous HTTP/1.1\r\nhost: g:8x\r\nflight-capability: any\r\n\r\n",
    "a target of another host than Host": b"GET http://other/ambiguous HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a target with credentials": b"GET http://u:p@gateway/ambiguous HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a target of another scheme": b"GET ftp://gateway/ambiguous HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a target with a space": b"GET /ambiguous b HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a target with a fragment": b"GET /ambiguous#b HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a target with a control character": b"GET /ambiguous\x01 HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a target with a tab": b"GET /ambiguous\tHTTP/1.1\r\n" + PACKET + b"\r\n",
    "a target that is an authority": b"GET gateway:80 HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a method with a NUL": b"GE\x00T /ambiguous HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a method with a parenthesis": b"GE(T /ambiguous HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a method in lower case": b"get /ambiguous HTTP/1.1\r\n" + PACKET + b"\r\n",
    "HTTP/0.9 by name": b"GET /ambiguous HTTP/0.9\r\n" + PACKET + b"\r\n",
    "HTTP/0.9 by form": b"GET /ambiguous\r\n\r\n",
    "HTTP/1.2": b"GET /ambiguous HTTP/1.2\r\n" + PACKET + b"\r\n",
    "HTTP/2.0 in the request line": b"GET /ambiguous HTTP/2.0\r\n" + PACKET + b"\r\n",
    # Where a body is hidden, or a length taken off.
    "a websocket upgrade with content-length": GET + WEBSOCKET + b"content-length: 4\r\n\r\nabcd",
    "a websocket upgrade with chunks": GET + WEBSOCKET + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a websocket upgrade with two keys": GET + WEBSOCKET + b"sec-websocket-key: eQ==\r\n\r\n",
    "an h2c upgrade with both lengths": HEAD
    + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a CONNECT with content-length": b"CONNECT gateway:443 HTTP/1.1\r\n" + PACKET + b"content-length: 4\r\n\r\nabcd",
    "a CONNECT with chunks": b"CONNECT gateway:443 HTTP/1.1\r\n"
    + PACKET
    + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a CONNECT to a path": b"CONNECT /ambiguous HTTP/1.1\r\n" + PACKET + b"\r\n",
    "a connection field that names content-length": HEAD
    + b"connection: content-length\r\ncontent-length: 4\r\n\r\nabcd",
    "a connection field that names Host": GET + b"connection: close, host\r\n\r\n",
    "an expectation without a body": GET + b"expect: 100-continue\r\n\r\n",
    "an unknown expectation": HEAD + b"expect: x 100-continue\r\ncontent-length: 4\r\n\r\nabcd",
}


def request(*more: tuple[str, str], **pseudo: str) -> list[tuple[str, str]]:
    """An HTTP/2 request's fields; `pseudo` replaces pseudo-header fields, or with an empty value leaves them out."""
    fields = {":method": "POST", ":scheme": "http", ":authority": "gateway", ":path": "/ambiguous"}
    fields |= {f":{name}": value for name, value in pseudo.items()}
    return [*((name, value) for name, value in fields.items() if value), ("flight-capability", "code.execute"), *more]


END = "\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: g"
HTTP2: dict[str, tuple[list[tuple[str, str]], bytes]] = {
    "CRLF in a value": (request(("x", f"y{END}")), b""),
    "LF in a value": (request(("x", "y\nflight-from: root")), b""),
    "CR in a value": (request(("x", "y\rflight-from: root")), b""),
    "NUL in a value": (request(("x", "y\0")), b""),
    "CRLF in a name": (request(("x: y\r\nz", "1")), b""),
    "a colon in a name": (request(("x:y", "1")), b""),
    "a space in a name": (request(("x y", "1")), b""),
    "upper case in a name": (request(("X-Y", "1")), b""),
    "an empty name": (request(("", "1")), b""),
    "a space in front of a value": (request(("x", " y")), b""),
    "a tab after a value": (request(("x", "y\t")), b""),
    "CRLF in the path": (request(path=f"/ambiguous HTTP/1.1{END}"), b""),
    "a space in the path": (request(path="/ambiguous HTTP/1.1"), b""),
    "a fragment in the path": (request(path="/ambiguous#x"), b""),
    "a path without a slash": (request(path="ambiguous"), b""),
    "a path that is a URL": (request(path="http://other/ambiguous"), b""),
    "no path": (request(path=""), b""),
    "CRLF in the method": (request(method=f"GET /smuggled HTTP/1.1{END}"), b""),
    "a space in the method": (request(method="GET /smuggled"), b""),
    "no method": (request(method=""), b""),
    "CRLF in the authority": (request(authority=f"gateway{END}"), b""),
    "user information in the authority": (request(authority="a@gateway"), b""),
    "a space in the authority": (request(authority="gateway x"), b""),
    "a path in the authority": (request(authority="gateway/x"), b""),
    "no authority": (request(authority=""), b""),
    "an authority other than host": (request(("host", "other")), b""),
    "two hosts": (request(("host", "gateway"), ("host", "gateway")), b""),
    "CRLF in the scheme": (request(scheme=f"http{END}"), b""),
    "a URL in the scheme": (request(scheme="http://other/smuggled?"), b""),
    "no scheme": (request(scheme=""), b""),
    "a second path": ([(":path", "/smuggled"), *request()], b""),
    "a pseudo-header field after the others": (request((":path", "/smuggled")), b""),
    "an unknown pseudo-header field": ([(":smuggled", "x"), *request()], b""),
    "a response's pseudo-header field": ([(":status", "200"), *request()], b""),
    "transfer-encoding": (request(("transfer-encoding", "chunked")), b"0\r\n\r\n" + SECOND),
    "connection": (request(("connection", "content-length")), b""),
    "keep-alive": (request(("keep-alive", "1")), b""),
    "proxy-connection": (request(("proxy-connection", "keep-alive")), b""),
    "upgrade": (request(("upgrade", "websocket")), b""),
    "te other than trailers": (request(("te", "chunked")), b""),
    "content-length less than the data": (request(("content-length", "1")), SECOND),
    "content-length of 0 with data": (request(("content-length", "0")), SECOND),
    # What there is of it may be on its way before the end shows that it is not all.
    "content-length more than the data": (request(("content-length", "9999")), b"not all of it"),
    "two content-lengths": (request(("content-length", "0"), ("content-length", f"{len(SECOND)}")), SECOND),
    "content-lengths in a list": (request(("content-length", f"{len(SECOND)}, {len(SECOND)}")), SECOND),
    "content-length with a plus": (request(("content-length", f"+{len(SECOND)}")), SECOND),
    "content-length with zeros in front": (request(("content-length", f"0{len(SECOND)}")), SECOND),
    "content-length that is empty": (request(("content-length", "")), SECOND),
    "a CONNECT with a path": (request(method="CONNECT"), b""),
    "protocol without CONNECT": ([(":protocol", "websocket"), *request()], b""),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawAgent]:
    """An agent that keeps every byte that it gets, as it comes."""

    def record(agent: RawAgent, connection: socket.socket) -> None:
        seen = b""
        while data := connection.recv(65536):
            agent.received.append(data)
            seen += data
            if seen.endswith(b"\r\nx-sum: 7\r\n\r\n" if b"chunked" in seen else (b"\r\n\r\n", b"job")):
                connection.sendall(OK)
                seen = b""

    agent = RawAgent(record)
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, certs, upstream: RawAgent) -> Iterator[RunningGateway]:
    running = launch(tmp_path_factory.mktemp("gateway"), certs, [member(upstream.port)])
    yield running
    running.stop()


def saw_nothing_of_it(upstream: RawAgent) -> None:
    """No byte of a smuggled request, and of an ambiguous one at most a beginning that never became whole."""
    seen = b"".join(upstream.received)
    upstream.received.clear()
    assert MARK not in seen
    assert b"flight-from: root" not in seen
    for ambiguous in seen.split(b"/ambiguous")[1:]:
        head, _, body = ambiguous.partition(b"\r\n\r\n")
        assert b"chunked" in head.lower() or b"content-length" in head.lower()
        assert not body.partition(b"POST /well-formed")[0].endswith(b"0\r\n\r\n")


def well_formed(gateway: RunningGateway, upstream: RawAgent) -> None:
    """The next request, on a connection of its own, is answered, and the agent sees just that."""
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 20) as connection:
        connection.sendall(b"POST /well-formed HTTP/1.1\r\n" + PACKET + b"content-length: 3\r\n\r\njob")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert b"\r\n\r\njob" in b"".join(upstream.received)


@pytest.mark.parametrize("name", HTTP1)
def test_no_agent_sees_an_ambiguous_request_that_came_by_http1(
    gateway: RunningGateway, upstream: RawAgent, name: str
) -> None:
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 20) as connection:
        connection.sendall(HTTP1[name] + SECOND)
        received = b""
        with contextlib.suppress(ConnectionResetError):  # the gateway closes, whatever else is on its way
            while piece := connection.recv(65536):
                received += piece
    assert received.startswith(b"HTTP/1.1 400 "), received
    assert received.count(b"HTTP/1.1 ") == 1, received
    well_formed(gateway, upstream)
    saw_nothing_of_it(upstream)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "the body later"])
@pytest.mark.parametrize("name", HTTP2)
def test_no_agent_sees_an_ambiguous_request_that_came_by_http2(
    gateway: RunningGateway, upstream: RawAgent, name: str, at_once: bool
) -> None:
    fields, body = HTTP2[name]
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 20) as connection:
        peer = Peer(connection)
        # A stream error or a connection error, as the gateway likes (RFC 9113 section 8.1.1).
        with contextlib.suppress(EOFError, ConnectionError):
            stream = peer.h2.get_next_available_stream_id()
            peer.h2.send_headers(stream, fields, end_stream=False)
            if not at_once:
                peer.settle()
            data = peer.h2.data_to_send() + len(body).to_bytes(3, "big") + b"\0\1" + stream.to_bytes(4, "big") + body
            connection.sendall(data)
            peer.event(h2.events.StreamReset, stream)
    well_formed(gateway, upstream)
    saw_nothing_of_it(upstream)


@pytest.mark.parametrize("name", ["flight_from", "flight-from", "Flight_From", "x_forwarded_for", "content_length"])
def test_no_spelling_of_what_only_the_gateway_says_reaches_an_agent(
    gateway: RunningGateway, upstream: RawAgent, name: str
) -> None:
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 20) as connection:
        connection.sendall(b"GET /ambiguous-name HTTP/1.1\r\n" + PACKET + name.encode() + b": smuggled\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert MARK not in b"".join(upstream.received)
    upstream.received.clear()


FORBIDDEN_TRAILERS = ["flight-from", "flight_from", "flight-capability", "authorization", "host", "x-forwarded-for"]


@pytest.mark.parametrize("name", FORBIDDEN_TRAILERS)
@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_what_belongs_into_the_head_is_dropped_from_the_trailers(
    gateway: RunningGateway, upstream: RawAgent, name: str, protocol: str
) -> None:
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 20) as connection:
        if protocol == "h2":
            peer = Peer(connection)
            stream = peer.request(HEADERS, ended=False)
            peer.h2.send_data(stream, b"x")
            peer.h2.send_headers(stream, [(name, "smuggled"), ("x-sum", "7")], end_stream=True)
            peer.flush()
            assert dict(peer.event(h2.events.ResponseReceived, stream).headers)[":status"] == "200"
        else:
            connection.sendall(CHUNKED + b"1\r\nx\r\n0\r\n" + name.encode() + b": smuggled\r\nx-sum: 7\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    seen = b"".join(upstream.received)
    assert MARK not in seen
    assert b"x-sum: 7" in seen
    upstream.received.clear()
