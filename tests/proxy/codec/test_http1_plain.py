"""HTTP/1.1 codecs that read plain messages by themselves tell what llhttp would have had them tell, and go on so.

Each dialogue is held with a codec that leaves all to llhttp, too: the same events and the same bytes at every step, and
the same state between the steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.proxy.codec import (
    ConnectionFailed,
    DataReceived,
    Ended,
    Event,
    Http1Client,
    Http1Server,
    RequestReceived,
    ResponseReceived,
    TrailersReceived,
    http1,
)
from gateway.proxy.codec.http1 import MAX_BLANK_BYTES, MAX_PIPELINED
from tests.proxy.codec.plainly import by_llhttp, native, plain, state, takes_native

pytestmark = takes_native

PLAIN = b"POST /run HTTP/1.1\r\nHost: g:1\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /a HTTP/1.1\r\nhost: g\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nserver: a\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"


# -- dialogues ----------------------------------------------------------------------------------------------


class Caller:
    """What callers send to a server, which answers each request as soon as it has been read, or before."""

    def __init__(self, server: Http1Server) -> None:
        self.codec = server
        self.told: list[Any] = []
        self.stream = 0
        self.begun = self.over = False

    def send(self, data: bytes) -> None:
        self._took(self.codec.receive(data))

    def _took(self, events: list[Event]) -> None:
        self.told.append(events)
        for each in events:
            if isinstance(each, RequestReceived):
                self.stream, self.begun, self.over = each.stream, True, each.ended
            self.over = self.over or isinstance(each, Ended | TrailersReceived)

    def answer(self, head: ResponseHead, *, early: bool) -> None:
        """Answer the request whose turn it is, if it is whole, or that does not matter."""
        if not self.begun or not (self.over or early):
            return
        self.begun = self.over = False
        self.codec.send_response(self.stream, head, ended=True)
        self.codec.end(self.stream)
        self.told.append(self.codec.output())
        self._took(self.codec.release(self.stream))


class Agent:
    """What an agent sends to a client, which asks it for one thing after another."""

    def __init__(self, client: Http1Client, asks: list[RequestHead]) -> None:
        self.codec = client
        self.asks = iter(asks)
        self.told: list[Any] = []
        self._ask()

    def _ask(self) -> None:
        head = next(self.asks, None)
        if head is not None and self.codec.room:
            self.stream = self.codec.send_request(head, ended=not head.protocol)
        self.told.append(self.codec.output())

    def send(self, data: bytes) -> None:
        events = self.codec.receive(data)
        self.told.append(events)
        for each in events:
            final = isinstance(each, ResponseReceived) and each.ended
            if final or isinstance(each, Ended | TrailersReceived):
                self.told.append(self.codec.release(self.stream))
                self._ask()


def the_same(one: Caller | Agent, other: Caller | Agent) -> None:
    assert one.told == other.told
    assert state(one.codec) == state(other.codec)


def callers(**limits: int) -> tuple[Caller, Caller]:
    def make() -> Http1Server:
        return Http1Server(scheme=b"https", **limits)

    return Caller(plain(make)), Caller(by_llhttp(make))


def agents(asks: list[RequestHead], **limits: int) -> tuple[Agent, Agent]:
    def make() -> Http1Client:
        return Http1Client(entropy=bytes, **limits)

    return Agent(plain(make), asks), Agent(by_llhttp(make), asks)


def ask(method: bytes = b"GET", protocol: bytes = b"") -> RequestHead:
    return RequestHead(b"CONNECT" if protocol else method, b"http", b"a:1", b"/", [(b"x", b"y")], protocol)


# -- what is drawn ------------------------------------------------------------------------------------------

_NAMES = st.sampled_from([b"Accept", b"x", b"Flight-Id", b"content-type", b"User-Agent", b"cookie"])
_VALUES = st.sampled_from([b"a", b"a b", b"a\t=;b", b"0", b"*/*", b"a" * 60])
_ODD_LINES = st.sampled_from(
    [
        *b"x:|x: |x : 1|x:  1|x: 1 |x:\t1|x: \xff|x: a\x00b|x|: 1| x: 1|Host: h|host: [::1]|Host: a@b".split(b"|"),
        *b"Connection: close|Connection: keep-alive|connection: Keep-Alive, x|Connection: te|connection: host".split(
            b"|"
        ),
        *b"Keep-Alive: timeout=5|Content-Length: 0|Content-Length: 5|Content-Length: 05|Content-Length: 6".split(b"|"),
        *b"Transfer-Encoding: chunked|TE: trailers|Trailer: x|Expect: 100-continue|Expect: y|Upgrade: h2c".split(b"|"),
        *b"proxy-connection: close|proxy-authorization: x|Connection: upgrade\r\nUpgrade: x".split(b"|"),
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nsec-websocket-key: a",
        b"x: 1\r\n fold",
        b"x: 1\n",
        b"x: 1\rx",
    ]
)
_ODD_STARTS = st.sampled_from(
    [
        *b"HEAD / HTTP/1.1|OPTIONS * HTTP/1.1|CONNECT a:1 HTTP/1.1|TRACE / HTTP/1.1|GET http://g:1/x HTTP/1.1".split(
            b"|"
        ),
        *b"GET / HTTP/1.0|GET / HTTP/1.2|GET /#a HTTP/1.1|GET /\xe9 HTTP/1.1|get / HTTP/1.1|GET  / HTTP/1.1|".split(
            b"|"
        ),
        *b"\r\nGET / HTTP/1.1|\r\n\r\n\r\nGET / HTTP/1.1|\nGET / HTTP/1.1|PRI * HTTP/2.0|GET /".split(b"|"),
    ]
)
_ODD_STATUSES = st.sampled_from(
    [
        *b"HTTP/1.1 100 Continue|HTTP/1.1 103 Early|HTTP/1.1 101 Switching|HTTP/1.1 204 No|HTTP/1.1 304 Not".split(
            b"|"
        ),
        *b"HTTP/1.0 200 OK|HTTP/1.1 200|HTTP/1.1 200 |HTTP/1.1 099 x|HTTP/1.1 600 x|HTTP/1.1 2000 x|ICY 200 OK".split(
            b"|"
        ),
        *b"\r\nHTTP/1.1 200 OK|RTSP/1.0 200 OK|HTTP/2.0 200 OK|HTTP/1.1  200 OK|HTTP/1.1 200 \xff".split(b"|"),
    ]
)
_BODIES = st.sampled_from([b"", b"hello", b"x" * 511, b"y" * 512, b"GET / HTTP/1.1\r\nhost: g\r\n\r\n", b"z" * 20_000])


@st.composite
def messages(draw: st.DrawFn, starts: st.SearchStrategy[bytes], odd_starts: st.SearchStrategy[bytes]) -> bytes:
    """A message that is plain in one of two cases."""
    odd = draw(st.booleans())
    start = draw(odd_starts if odd and draw(st.booleans()) else starts)
    lines = [name + b": " + value for name, value in draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=4))]
    if not start.startswith(b"HTTP") or draw(st.booleans()):
        lines.insert(0, b"Host: g:1")
    body = draw(_BODIES)
    if odd and draw(st.booleans()):
        lines.append(b"Transfer-Encoding: chunked")
        sizes = [body[at : at + 300] for at in range(0, min(len(body), 900), 300)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in sizes) + b"0\r\n"
        body += draw(st.sampled_from([b"\r\n", b"x: y\r\n\r\n", b"connection: close\r\n\r\n", b"te: x\r\n\r\n"]))
    elif body or start.startswith(b"HTTP") or draw(st.booleans()):
        lines.append(b"Content-Length: %d" % len(body))
    if odd:
        lines.insert(draw(st.integers(0, len(lines))), draw(_ODD_LINES))
    return b"\r\n".join([start, *lines, b"", body])


@st.composite
def wires(draw: st.DrawFn, each: st.SearchStrategy[bytes], *, apart: bool) -> list[bytes]:
    """The reads that a few messages come in, perhaps with something done to them; or each message by itself."""
    sent = draw(st.lists(each, min_size=1, max_size=4))
    if apart and draw(st.sampled_from([True, True, True, False])):
        return sent if draw(st.booleans()) else [part for each in sent for part in (each[:40], each[40:]) if part]
    data = bytearray(b"".join(sent))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2, 3]))):
        at = draw(st.integers(0, min(len(data), 400)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at:at] = draw(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b"0"]))
            case 1 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                del data[at : at + draw(st.integers(1, 3))]
            case _:
                del data[at:]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    bounds = [0, *cuts, len(data)]
    reads = (bytes(data[begin:end]) for begin, end in itertools.pairwise(bounds))
    return [read for read in reads if read]


_REQUEST_STARTS = st.sampled_from(
    [b"POST /run HTTP/1.1", b"GET /a?b=c HTTP/1.1", b"DELETE / HTTP/1.1", b"PUT //x HTTP/1.1"]
)
_STATUS_LINES = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 503 ", b"HTTP/1.1 299 a\tb"])
_LIMITS = st.sampled_from([{}, {}, {}, {"max_header_bytes": 60}, {"max_headers": 3}])
_ANSWERS = st.sampled_from(
    [
        ResponseHead(200, [(b"a", b"b"), (b"content-length", b"0")]),
        ResponseHead(204, []),
        ResponseHead(404, [(b"a", b"b")]),
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    wires(messages(_REQUEST_STARTS, _ODD_STARTS), apart=False),
    st.lists(st.tuples(st.sampled_from([True, True, True, False]), st.booleans(), _ANSWERS), max_size=6),
    st.sampled_from([GET, PLAIN, PLAIN + GET, b"HEAD / HTTP/1.1\r\nhost: g\r\n\r\n"]),
    _LIMITS,
)
def test_a_caller_is_understood_as_llhttp_would_understand_it(
    reads: list[bytes], answers: list[tuple[bool, bool, ResponseHead]], last: bytes, limits: dict[str, int]
) -> None:
    both = callers(**limits)
    steps = iter(answers)
    for data in reads:
        answered, early, head = next(steps, (True, False, ResponseHead(200, [])))
        for caller in both:
            caller.send(data)
            if answered:
                caller.answer(head, early=early)
        the_same(*both)
    # Whatever there was before: it goes on as it would have.
    for _ in range(3):
        for caller in both:
            caller.answer(ResponseHead(200, []), early=False)
            caller.send(last)
        the_same(*both)
    for caller in both:
        caller.codec.close()
        caller.told.append(caller.codec.receive_eof())
    the_same(*both)
    event("failed" if any(isinstance(each, ConnectionFailed) for each in _events(both[0])) else "did not fail")


@settings(max_examples=400, deadline=None)
@given(
    wires(messages(_STATUS_LINES, _ODD_STATUSES), apart=True),
    st.lists(
        st.sampled_from([ask(), ask(), ask(b"POST"), ask(b"HEAD"), ask(protocol=b"websocket")]), min_size=1, max_size=5
    ),
    st.sampled_from([ANSWER, ANSWER + b"\r\n", ANSWER[:-1]]),
    _LIMITS,
)
def test_an_agent_is_understood_as_llhttp_would_understand_it(
    reads: list[bytes], asks: list[RequestHead], last: bytes, limits: dict[str, int]
) -> None:
    both = agents([*asks, ask(), ask(), ask()], **limits)
    for data in [*reads, last, last]:
        for agent in both:
            agent.send(data)
        the_same(*both)
    for agent in both:
        agent.told.append(agent.codec.receive_eof())
    the_same(*both)
    event("failed" if any(isinstance(each, ConnectionFailed) for each in _events(both[0])) else "did not fail")


def _events(side: Caller | Agent) -> Iterator[Event]:
    for told in side.told:
        if isinstance(told, list):
            yield from told


@pytest.mark.parametrize("cut", range(len(PLAIN + GET)))
def test_where_requests_are_cut_changes_nothing(cut: int) -> None:
    both = callers()
    wire = PLAIN + GET
    for data in (wire[:cut], wire[cut:], PLAIN):
        for caller in both:
            caller.send(data)
        the_same(*both)
    assert sum(isinstance(each, RequestReceived) for each in _events(both[0])) == 1
    for caller in both:
        for _ in range(3):
            caller.answer(ResponseHead(200, []), early=False)
    the_same(*both)
    assert sum(isinstance(each, RequestReceived) for each in _events(both[0])) == 3


@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_where_an_answer_is_cut_changes_nothing(cut: int) -> None:
    both = agents([ask()] * 3)
    for data in (ANSWER, ANSWER[:cut], ANSWER[cut:], ANSWER):
        for agent in both:
            agent.send(data)
        the_same(*both)
    assert sum(isinstance(each, Ended) for each in _events(both[0])) == 3


# -- where llhttp is not at the beginning of a message ------------------------------------------------------


def _request(start: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([start, b"host: g", *lines])


_UPGRADE = b"connection: upgrade"
_BEFORE = {
    "close": _request(b"GET / HTTP/1.1", b"connection: close\r\n\r\n"),
    "HTTP/1.0": _request(b"GET / HTTP/1.0", b"\r\n"),
    "HTTP/1.0, kept": _request(b"GET / HTTP/1.0", b"connection: keep-alive\r\n\r\n"),
    "chunked": _request(b"POST / HTTP/1.1", CHUNKED + b"\r\n"),
    "close in trailers": _request(b"POST / HTTP/1.1", CHUNKED + b"connection: close\r\n\r\n"),
    "trailers under way": _request(b"POST / HTTP/1.1", CHUNKED),
    "h2c": _request(b"GET / HTTP/1.1", _UPGRADE, b"upgrade: h2c\r\n\r\n"),
    "h2c, close": _request(b"GET / HTTP/1.1", _UPGRADE + b", close", b"upgrade: h2c\r\n\r\n"),
    "h2c, body": _request(b"POST / HTTP/1.1", _UPGRADE, b"upgrade: h2c", b"content-length: 3\r\n\r\n"),
    "websocket": _request(b"GET / HTTP/1.1", _UPGRADE, b"upgrade: websocket", b"sec-websocket-key: a\r\n\r\n"),
    "tunnel": b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
    "body under way": _request(b"POST / HTTP/1.1", b"content-length: 9\r\n\r\n12345"),
    "half an empty line": b"\r",
    "empty lines": b"\r\n" * 300,
    "a letter": b"P",
}


@pytest.mark.parametrize("before", _BEFORE.values(), ids=_BEFORE)
@pytest.mark.parametrize("apart", [True, False], ids=["in two reads", "in one"])
def test_a_plain_request_is_read_as_what_it_is_there(before: bytes, apart: bool) -> None:
    both = callers()
    for data in [before, PLAIN + GET] if apart else [before + PLAIN + GET]:
        for caller in both:
            caller.send(data)
        the_same(*both)
    for caller in both:
        for _ in range(3):
            caller.answer(ResponseHead(200, []), early=False)
    the_same(*both)


def test_an_agent_that_closes_in_its_trailers_is_heard_no_more() -> None:
    both = agents([ask()] * 2)
    for agent in both:
        agent.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"connection: close\r\n\r\n")
        agent.send(ANSWER)
    the_same(*both)
    assert isinstance(both[0].told[-1][-1], ConnectionFailed)


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
@pytest.mark.parametrize("head", [b"content-length: 5", b"content-length: 0", b"transfer-encoding: chunked", b"x: y"])
def test_what_follows_an_answer_to_head_is_read(method: bytes, head: bytes) -> None:
    both = agents([ask(method), ask(), ask()])
    for agent in both:
        agent.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        agent.send(ANSWER)
        agent.send(ANSWER)
    the_same(*both)


def test_a_plain_answer_after_one_to_head_is_read_as_such() -> None:
    assert native is not None
    read = mock.Mock(wraps=native.read_response)
    with mock.patch.object(http1, "read_response", read):
        agent = Agent(Http1Client(entropy=bytes), [ask(b"HEAD"), ask()])
    agent.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert not read.called
    agent.send(ANSWER)
    assert read.called


@pytest.mark.parametrize("count", [MAX_PIPELINED - 1, MAX_PIPELINED, MAX_PIPELINED + 1, MAX_PIPELINED + 2, 1000])
@pytest.mark.parametrize("message", [GET, PLAIN])
def test_only_so_many_requests_are_read_before_an_answer(count: int, message: bytes) -> None:
    both = callers()
    for caller in both:
        caller.send(message * count)
    the_same(*both)
    failed = any(isinstance(each, ConnectionFailed) for each in _events(both[0]))
    assert failed == (count > MAX_PIPELINED + 1)
    assert both[0].codec.backlogged == (not failed)


@pytest.mark.parametrize("blank", [MAX_BLANK_BYTES, MAX_BLANK_BYTES + 2, 30_000])
@pytest.mark.parametrize("before", [GET, PLAIN, PLAIN[:-1], b""])
def test_empty_lines_are_counted_as_ever(blank: int, before: bytes) -> None:
    both = callers()
    lines = b"\r\n" * (blank // 2)
    for data in (before or b"\r\n", b"o" * (before == PLAIN[:-1]) + lines, GET, b"\r\n", GET + lines, lines):
        for caller in both:
            caller.send(data)
        the_same(*both)


# -- that it is done at all ---------------------------------------------------------------------------------


def test_plain_messages_do_not_go_through_llhttp() -> None:
    class Never:
        def feed_data(self, data: bytes) -> None:
            raise AssertionError(data)

    with mock.patch.object(http1.httptools, "HttpRequestParser", return_value=Never()):
        server = plain(lambda: Http1Server(scheme=b"https"))
    with mock.patch.object(http1.httptools, "HttpResponseParser", return_value=Never()):
        client = plain(lambda: Http1Client(entropy=bytes))
    fields: Fields = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    head = RequestHead(b"POST", b"https", b"g:1", b"/run", fields)
    for stream in (1, 2):
        assert server.receive(PLAIN[:-2]) == [RequestReceived(stream, head, False), DataReceived(stream, b"hel", 3)]
        assert server.receive(PLAIN[-2:]) == [DataReceived(stream, b"lo", 2), Ended(stream)]
        server.send_response(stream, ResponseHead(204, []), ended=True)
        server.end(stream)
        assert server.output() == b"HTTP/1.1 204 No Content\r\n\r\n"
        server.release(stream)
        client.send_request(head, ended=True)
        assert client.receive(ANSWER) == [
            ResponseReceived(stream, ResponseHead(200, [(b"server", b"a"), (b"content-length", b"5")]), False),
            DataReceived(stream, b"hello", 5),
            Ended(stream),
        ]
        client.release(stream)
        assert client.room == 1
