"""What every HTTP/2 codec holds to, be it compiled or not, as a dialogue without a network."""

from __future__ import annotations

import gc
import itertools
import random
from typing import Any

import h2.settings
import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.proxy.codec import (
    ConnectionFailed,
    DataReceived,
    Ended,
    Event,
    GoAwayReceived,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Writable,
)
from gateway.proxy.codec.http2 import CONNECTION_WINDOW_BYTES, DISCARD_BYTES, STREAM_WINDOW_BYTES
from tests.proxy.codec.implementations import IMPLEMENTATIONS, Implementation, native
from tests.proxy.codec.memory import resident_bytes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD: Fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"g"), (b":path", b"/run")]
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, STREAM_CLOSED, REFUSED_STREAM, CANCEL = 0, 1, 2, 5, 7, 8

pytestmark = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def frames_of(data: bytes) -> list[Frame]:
    """The frames that a codec wrote."""
    data = data.removeprefix(PREFACE)
    frames = []
    while data:
        frame, size = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + size]))
        frames.append(frame)
        data = data[9 + size :]
    return frames


class Caller:
    """A caller that writes frames as it is told, right or wrong, to a server codec."""

    def __init__(self, implementation: Implementation, **limits: Any) -> None:
        self.codec = implementation.server(**limits)
        self.encoder = Encoder()
        self.send(SettingsFrame(0), SettingsFrame(0, flags={"ACK"}), before=PREFACE)
        assert self.read()

    def send(self, *frames: Frame, before: bytes = b"") -> list[Event]:
        told: list[Event] = self.codec.receive(before + b"".join(frame.serialize() for frame in frames))
        return told

    def read(self) -> list[Frame]:
        """The frames that the codec has written since the last time."""
        return frames_of(self.codec.output())

    def head(self, stream: int, fields: Fields = HEAD, *, ended: bool = False) -> HeadersFrame:
        flags = {"END_HEADERS", "END_STREAM"} if ended else {"END_HEADERS"}
        return HeadersFrame(stream, self.encoder.encode(fields, huffman=False), flags=flags)

    def request(self, stream: int, fields: Fields = HEAD, *, ended: bool = False) -> Event:
        (event,) = self.send(self.head(stream, fields, ended=ended))
        return event


def data(stream: int, body: bytes, *, ended: bool = False, padding: int = 0) -> DataFrame:
    flags = {"END_STREAM"} if ended else set()
    return DataFrame(stream, body, pad_length=padding, flags=flags | ({"PADDED"} if padding else set()))


def resets(frames: list[Frame]) -> list[tuple[int, int]]:
    return [(frame.stream_id, frame.error_code) for frame in frames if isinstance(frame, RstStreamFrame)]


def credit(frames: list[Frame], stream: int) -> int:
    return sum(f.window_increment for f in frames if isinstance(f, WindowUpdateFrame) and f.stream_id == stream)


def body_of(frames: list[Frame], stream: int = 1) -> bytes:
    return b"".join(frame.data for frame in frames if isinstance(frame, DataFrame) and frame.stream_id == stream)


def test_a_message_comes_apart_into_its_events(implementation: Implementation) -> None:
    caller = Caller(implementation)
    cookies = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"host", b"G")]
    head = RequestHead(b"POST", b"https", b"G", b"/run", [(b"x", b"y"), (b"cookie", b"a=1; b=2")])
    assert caller.request(1, [*HEAD, *cookies]) == RequestReceived(1, head, False)
    assert caller.send(data(1, b"job")) == [DataReceived(1, b"job", 3)]
    assert caller.send(data(1, b"")) == []
    assert caller.send(caller.head(1, [(b"x-sum", b"1")], ended=True)) == [TrailersReceived(1, [(b"x-sum", b"1")])]
    head = RequestHead(b"CONNECT", b"https", b"g", b"/ws", [], b"websocket")
    websocket = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *HEAD[1:3], (b":path", b"/ws")]
    assert caller.request(3, websocket) == RequestReceived(3, head, False)
    assert caller.send(data(3, b"", ended=True)) == [Ended(3)]


def test_the_last_piece_of_a_body_carries_its_end(implementation: Implementation) -> None:
    caller = Caller(implementation)
    caller.request(1, ended=True)
    caller.codec.send_response(1, ResponseHead(103, [(b"link", b"x")]), ended=False)
    caller.codec.send_response(1, ResponseHead(200, [(b"x", b"y")]), ended=False)
    assert caller.codec.send_data(1, b"one")
    assert caller.codec.send_data(1, b"two")
    caller.codec.end(1)
    assert caller.codec.release(1) == []
    written = caller.read()
    assert [type(frame) for frame in written] == [HeadersFrame, HeadersFrame, DataFrame, DataFrame]
    assert body_of(written) == b"onetwo"
    assert ["END_STREAM" in frame.flags for frame in written[-2:]] == [False, True]


def test_data_beyond_the_window_waits_and_says_when_it_has_gone(implementation: Implementation) -> None:
    caller = Caller(implementation)
    body = random.Random(1).randbytes(100_000)
    caller.request(1, ended=True)
    caller.codec.send_response(1, ResponseHead(200, []), ended=False)
    assert not caller.codec.send_data(1, body)
    assert not caller.codec.send_data(1, b"more")
    got = body_of(caller.read())
    assert got == body[:65535]
    told = caller.send(WindowUpdateFrame(1, 1000))
    assert told == []
    told = caller.send(WindowUpdateFrame(0, 1_000_000), WindowUpdateFrame(1, 1_000_000))
    assert told == [Writable(1)]
    got += body_of(caller.read())
    assert got == body + b"more"
    # Closed windows, and an end that waits: nothing is writable any more, and the exchange may be over before.
    caller.send(SettingsFrame(0, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}))
    caller.request(3, ended=True)
    caller.codec.send_response(3, ResponseHead(200, []), ended=False)
    assert not caller.codec.send_data(3, b"last")
    caller.codec.end(3, [(b"grpc-status", b"0")])
    caller.codec.release(3)
    caller.codec.close()
    assert not caller.codec.finished
    caller.read()
    assert caller.send(WindowUpdateFrame(3, 100)) == []
    written = caller.read()
    assert body_of(written, 3) == b"last"
    assert isinstance(written[-1], HeadersFrame)
    assert "END_STREAM" in written[-1].flags


def test_window_comes_back_when_data_was_passed_on_and_the_connection_s_at_once(implementation: Implementation) -> None:
    caller = Caller(implementation)
    caller.request(1)
    received = 0
    while received < STREAM_WINDOW_BYTES:
        (event,) = caller.send(data(1, b"x" * 16384))
        assert isinstance(event, DataReceived)
        received += event.size
    assert credit(caller.read(), 1) == 0
    caller.codec.consumed(1, received)
    assert credit(caller.read(), 1) == STREAM_WINDOW_BYTES
    for stream in range(3, 9, 2):
        caller.request(stream)
        for _ in range(STREAM_WINDOW_BYTES // 16384):
            caller.send(data(stream, b"x" * 16384))
    assert credit(caller.read(), 0) >= CONNECTION_WINDOW_BYTES // 2


def test_padding_is_window_that_comes_back_too(implementation: Implementation) -> None:
    caller = Caller(implementation)
    caller.request(1)
    back = 0
    for _ in range(3000):
        for event in caller.send(data(1, b"x", padding=200)):
            assert isinstance(event, DataReceived)
            caller.codec.consumed(1, event.size)
        back += credit(caller.read(), 1)
    assert back > 3000 * 202 - STREAM_WINDOW_BYTES


def test_the_rest_of_an_answered_request_is_taken_up_to_a_bound(implementation: Implementation) -> None:
    caller = Caller(implementation)
    caller.send(caller.head(1), data(1, b"x" * 16384), data(1, b"x" * 16384))
    caller.codec.send_response(1, ResponseHead(403, []), ended=False)
    caller.codec.send_data(1, b"no")
    caller.codec.end(1)
    caller.codec.release(1)
    sent, window = 0, STREAM_WINDOW_BYTES - 32768
    written = caller.read()
    while not resets(written):
        window += credit(written, 1)
        assert window >= 16384, "the peer is not let send on"
        assert caller.send(data(1, b"x" * 16384)) == []
        window -= 16384
        sent += 16384
        written = caller.read()
    assert DISCARD_BYTES < sent <= DISCARD_BYTES + 16384
    assert resets(written) == [(1, NO_ERROR)]
    assert caller.request(3, ended=True).stream == 3


@pytest.mark.parametrize(
    "fields",
    [
        [*HEAD, (b"Upper", b"x")],
        [*HEAD, (b"connection", b"close")],
        [*HEAD, (b"te", b"gzip")],
        [*HEAD, (b"x", b"a\nb")],
        [*HEAD, (b"x", b" a")],
        [*HEAD, (b"", b"a")],
        [*HEAD, (b"x", b"1"), (b":path", b"/")],
        [*HEAD, (b":path", b"/")],
        [*HEAD, (b":status", b"200")],
        [*HEAD, (b":unknown", b"x")],
        [*HEAD, (b"host", b"another")],
        [*HEAD, (b"host", b"g"), (b"host", b"g")],
        [*HEAD, (b"content-length", b"1"), (b"content-length", b"1")],
        [*HEAD, (b"content-length", b"+1")],
        [(b":method", b"GET"), (b":scheme", b"ftp"), (b":authority", b"g"), (b":path", b"/")],
        [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"g"), (b":path", b"/ x")],
        [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"g@h"), (b":path", b"/")],
        [(b":method", b"CONNECT"), (b":authority", b"g"), (b":path", b"/")],
    ],
)
def test_a_malformed_head_costs_its_stream(implementation: Implementation, fields: Fields) -> None:
    caller = Caller(implementation)
    assert caller.send(caller.head(1, fields)) == []
    assert resets(caller.read()) == [(1, PROTOCOL_ERROR)]
    assert isinstance(caller.request(3), RequestReceived)


@pytest.mark.parametrize(("length", "body"), [(b"3", b"four"), (b"3", b"no"), (b"0", b"x"), (b"1", b"")])
def test_a_body_that_is_not_as_long_as_it_says_is_never_whole(
    implementation: Implementation, length: bytes, body: bytes
) -> None:
    caller = Caller(implementation)
    caller.request(1, [*HEAD, (b"content-length", length)])
    told = caller.send(data(1, body, ended=True))
    assert isinstance(told[-1], StreamReset | ConnectionFailed)
    assert not any(isinstance(event, Ended) for event in told)


def test_a_head_that_ends_its_message_says_of_no_body(implementation: Implementation) -> None:
    caller = Caller(implementation)
    assert caller.send(caller.head(1, [*HEAD, (b"content-length", b"3")], ended=True)) == []
    assert resets(caller.read()) == [(1, PROTOCOL_ERROR)]
    assert isinstance(caller.request(3, [*HEAD, (b"content-length", b"0")], ended=True), RequestReceived)


def test_bad_trailers_cost_their_stream(implementation: Implementation) -> None:
    caller = Caller(implementation)
    for stream, trailers in zip(itertools.count(1, 2), [[(b":path", b"/")], [(b"Upper", b"x")]], strict=False):
        caller.request(stream)
        assert caller.send(caller.head(stream, trailers, ended=True)) == [StreamReset(stream)]
        assert resets(caller.read()) == [(stream, PROTOCOL_ERROR)]


def test_a_head_over_its_limits_is_refused_and_the_connection_goes_on(implementation: Implementation) -> None:
    caller = Caller(implementation, max_header_bytes=1000, max_headers=10)
    for stream, fields, abuse in (
        (1, [(b"x", b"y" * 1001)], "header-list-too-large"),
        (3, [(b"x", b"y")] * 11, "too-many-headers"),
    ):
        event = caller.request(stream, [*HEAD, *fields])
        assert isinstance(event, RequestRefused)
        assert (event.stream, event.abuse) == (stream, abuse)
        caller.codec.send_response(stream, ResponseHead(431, []), ended=True)
        caller.codec.release(stream)
    assert isinstance(caller.request(5, [*HEAD, *[(b"cookie", b"a")] * 50]), RequestReceived)
    (failed,) = caller.send(caller.head(7, [*HEAD, (b"x", b"y" * 3000)]))
    assert isinstance(failed, ConnectionFailed)
    assert failed.abuse == "header-list-too-large"
    assert caller.codec.finished


def test_streams_beyond_the_limit_are_refused(implementation: Implementation) -> None:
    caller = Caller(implementation, max_streams=2)
    caller.send(caller.head(1), caller.head(3), caller.head(5))
    assert resets(caller.read()) == [(5, REFUSED_STREAM)]
    caller.codec.send_response(1, ResponseHead(200, []), ended=True)
    caller.codec.release(1)
    caller.read()
    caller.send(data(1, b"", ended=True))
    assert isinstance(caller.request(7), RequestReceived)


def test_floods_end_the_connection_and_say_what_they_were(implementation: Implementation) -> None:
    def flood(*frames: Frame) -> str:
        caller = Caller(implementation)
        told: list[Event] = []
        for _ in range(40):
            told += caller.send(*frames)
            caller.read()
        failed = [event for event in told if isinstance(event, ConnectionFailed)]
        assert len(failed) == 1
        assert caller.codec.finished
        return failed[0].abuse

    assert flood(*[PingFrame(0, bytes(8))] * 50) == "ping-flood"
    assert flood(*[SettingsFrame(0)] * 50) == "settings-flood"
    assert flood(*[WindowUpdateFrame(0, 1)] * 100) == "window-update-flood"


def test_resets_end_the_connection_when_they_are_all_that_comes(implementation: Implementation) -> None:
    caller = Caller(implementation)
    told: list[Event] = []
    for stream in range(1, 2001, 2):
        told += caller.send(caller.head(stream), RstStreamFrame(stream, CANCEL))
        if caller.codec.finished:
            break
    assert isinstance(told[-1], ConnectionFailed)
    assert told[-1].abuse == "rapid-reset"
    assert any(isinstance(frame, GoAwayFrame) for frame in caller.read())


def test_a_connection_without_a_preface_fails(implementation: Implementation) -> None:
    codec = implementation.server()
    told = codec.receive(b"GET / HTTP/1.1\r\nhost: g\r\n\r\n")
    assert isinstance(told[-1], ConnectionFailed)
    assert told[-1].detail
    assert codec.finished
    assert codec.receive(b"more") == []


def test_close_lets_open_streams_finish_and_refuses_new_ones(implementation: Implementation) -> None:
    caller = Caller(implementation)
    caller.request(1)
    caller.codec.close()
    assert [f.last_stream_id for f in caller.read() if isinstance(f, GoAwayFrame)] == [1]
    assert caller.send(caller.head(3)) == []
    assert resets(caller.read()) == [(3, REFUSED_STREAM)]
    assert not caller.codec.finished
    assert caller.send(data(1, b"", ended=True)) == [Ended(1)]
    caller.codec.send_response(1, ResponseHead(200, []), ended=True)
    caller.codec.release(1)
    assert [type(frame) for frame in caller.read()] == [HeadersFrame]
    assert caller.codec.finished


def test_who_hears_that_the_connection_closes_may_send_until_it_has_answered(implementation: Implementation) -> None:
    caller = Caller(implementation)
    caller.codec.announce()
    caller.codec.announce()
    goaway, ping = caller.read()
    assert (goaway.last_stream_id, goaway.error_code) == (2**31 - 1, NO_ERROR)
    assert isinstance(caller.request(1, ended=True), RequestReceived)
    caller.send(PingFrame(0, bytes(8), flags={"ACK"}))
    assert caller.read() == []
    caller.send(caller.head(3), PingFrame(0, ping.opaque_data, flags={"ACK"}))
    assert [frame.last_stream_id for frame in caller.read()] == [3]
    assert caller.send(caller.head(5)) == []
    assert resets(caller.read()) == [(5, REFUSED_STREAM)]


def test_a_head_that_has_not_ended_is_known_by_its_stream(implementation: Implementation) -> None:
    caller = Caller(implementation)
    assert caller.codec.unfinished == 0
    whole = caller.head(1).serialize()
    caller.codec.receive(whole[:12])
    assert caller.codec.unfinished == 1
    caller.codec.receive(whole[12:])
    assert caller.codec.unfinished == 0
    block = caller.encoder.encode(HEAD)
    caller.send(HeadersFrame(3, block[:2]))
    assert caller.codec.unfinished == 3
    assert isinstance(caller.send(ContinuationFrame(3, block[2:], flags={"END_HEADERS"}))[0], RequestReceived)
    assert caller.codec.unfinished == 0


def test_an_answer_that_breaks_off_is_sent_as_far_as_it_came(implementation: Implementation) -> None:
    caller = Caller(implementation)
    caller.request(1, ended=True)
    caller.codec.send_response(1, ResponseHead(200, []), ended=False)
    caller.codec.send_data(1, b"half")
    caller.codec.reset(1)
    head, body, reset = caller.read()
    assert isinstance(head, HeadersFrame)
    assert isinstance(body, DataFrame)
    assert (body.data, resets([reset])) == (b"half", [(1, INTERNAL_ERROR)])


@pytest.mark.parametrize("at", range(1, 60, 3))
def test_a_request_may_come_in_pieces_cut_anywhere(implementation: Implementation, at: int) -> None:
    caller = Caller(implementation)
    for stream in (1, 3):
        wire = (
            caller.head(stream).serialize()
            + data(stream, b"job").serialize()
            + data(stream, b"", ended=True).serialize()
        )
        told = [*caller.codec.receive(wire[:at]), *caller.codec.receive(wire[at:])]
        assert [kind for kind, _ in itertools.groupby(told, type)] == [RequestReceived, DataReceived, Ended]
        assert resets(caller.read()) == []


def test_small_frames_of_one_read_are_one_piece(implementation: Implementation) -> None:
    caller = Caller(implementation)
    caller.request(1)
    (event,) = caller.send(*[data(1, b"%d" % at) for at in range(10)])
    assert isinstance(event, DataReceived)
    assert (event.data, event.size) == (b"0123456789", 10)


def test_a_ping_asks_the_agent_for_a_sign_of_life(implementation: Implementation) -> None:
    agent = Agent(implementation)
    agent.codec.ping()
    (frame,) = frames_of(agent.codec.output())
    assert isinstance(frame, PingFrame)
    assert agent.send(PingFrame(0, bytes(8), flags={"ACK"})) == []


def test_a_stream_that_is_broken_off_is_told_once_by_either_side(implementation: Implementation) -> None:
    caller = Caller(implementation)
    for stream in (1, 3, 5):
        caller.request(stream)
    caller.codec.reset(1)
    caller.codec.reset(3, cancelled=True)
    caller.codec.reset(3)
    assert resets(caller.read()) == [(1, INTERNAL_ERROR), (3, CANCEL)]
    assert caller.send(RstStreamFrame(1, CANCEL), RstStreamFrame(5, REFUSED_STREAM)) == [StreamReset(5, True)]
    assert caller.codec.send_data(5, b"nobody")
    caller.request(7)
    assert caller.codec.receive_eof() == [StreamReset(7)]
    assert caller.codec.finished


class Agent:
    """An agent that writes frames as it is told to a client codec."""

    def __init__(self, implementation: Implementation, **settings: int) -> None:
        self.codec = implementation.client()
        self.encoder = Encoder()
        self.send(SettingsFrame(0, {h2.settings.SettingCodes[name]: value for name, value in settings.items()}))
        self.codec.output()

    def send(self, *frames: Frame) -> list[Event]:
        told: list[Event] = self.codec.receive(b"".join(frame.serialize() for frame in frames))
        return told

    def head(self, stream: int, fields: Fields, *, ended: bool = False) -> HeadersFrame:
        flags = {"END_HEADERS", "END_STREAM"} if ended else {"END_HEADERS"}
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags)

    def request(self, method: bytes = b"GET", *, ended: bool = True) -> int:
        stream: int = self.codec.send_request(RequestHead(method, b"https", b"a", b"/", []), ended=ended)
        return stream


def test_an_answer_comes_apart_into_its_events(implementation: Implementation) -> None:
    agent = Agent(implementation)
    stream = agent.request()
    assert agent.send(
        agent.head(stream, [(b":status", b"103"), (b"x", b"y")]), agent.head(stream, [(b":status", b"200")])
    ) == [
        ResponseReceived(stream, ResponseHead(103, [(b"x", b"y")]), False),
        ResponseReceived(stream, ResponseHead(200, []), False),
    ]
    assert agent.send(data(stream, b"x"), agent.head(stream, [(b"grpc-status", b"0")], ended=True)) == [
        DataReceived(stream, b"x", 1),
        TrailersReceived(stream, [(b"grpc-status", b"0")]),
    ]
    agent.codec.release(stream)
    stream = agent.request(b"HEAD")
    head = agent.head(stream, [(b":status", b"200"), (b"content-length", b"5")], ended=True)
    (event,) = agent.send(head)
    assert isinstance(event, ResponseReceived)
    assert event.ended


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b":status", b"20")],
        [(b":status", b"101")],
        [(b":status", b"2xx")],
        [(b":status", b"200"), (b":path", b"/")],
    ],
)
def test_a_malformed_answer_costs_its_stream(implementation: Implementation, fields: Fields) -> None:
    agent = Agent(implementation)
    stream, other = agent.request(), agent.request()
    assert agent.send(agent.head(stream, [*fields, (b"x", b"y")])) == [StreamReset(stream)]
    assert resets(frames_of(agent.codec.output())) == [(stream, PROTOCOL_ERROR)]
    (event,) = agent.send(agent.head(other, [(b":status", b"200")], ended=True))
    assert isinstance(event, ResponseReceived)


def test_room_is_what_the_agent_and_we_allow(implementation: Implementation) -> None:
    agent = Agent(implementation, MAX_CONCURRENT_STREAMS=3)
    assert agent.codec.room == 3
    streams = [agent.request(ended=False) for _ in range(3)]
    assert agent.codec.room == 0
    agent.codec.reset(streams[0], cancelled=True)
    agent.codec.release(streams[0])
    assert agent.codec.room == 1
    agent.send(GoAwayFrame(0, streams[1]))
    assert agent.codec.room == 0


def test_goaway_gives_back_what_the_agent_never_looked_at(implementation: Implementation) -> None:
    agent = Agent(implementation)
    streams = [agent.request(ended=False) for _ in range(3)]
    assert agent.send(GoAwayFrame(0, streams[0])) == [
        StreamReset(streams[1], untouched=True),
        StreamReset(streams[2], untouched=True),
        GoAwayReceived(),
    ]
    (event, *_) = agent.send(agent.head(streams[0], [(b":status", b"200")], ended=True))
    assert isinstance(event, ResponseReceived)
    agent.codec.end(streams[0])
    agent.codec.output()
    agent.codec.release(streams[0])
    assert agent.codec.finished


def test_an_answer_that_is_not_wanted_to_its_end_is_cancelled(implementation: Implementation) -> None:
    agent = Agent(implementation)
    stream = agent.request()
    agent.codec.output()
    agent.send(agent.head(stream, [(b":status", b"200")]), data(stream, b"x"))
    agent.codec.release(stream)
    assert resets(frames_of(agent.codec.output())) == [(stream, CANCEL)]
    assert agent.send(data(stream, b"late")) == []


_NAMES = st.sampled_from(
    [
        *b":method :path :authority :scheme :protocol :status x X te host cookie connection upgrade a_b".split(),
        b"content-length",
        b"a b",
        b"",
    ]
)
_VALUES = st.sampled_from(
    [
        *b"GET CONNECT / * /a?b https http g G g:1 [::1]:2 [g] g@h trailers 0 3 03 200 \xff websocket".split(),
        b"",
        b"a b",
        b" x",
        b"x\t",
        b"a\r\nb",
        b"a\x00",
    ]
)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=4), st.booleans(), st.permutations(range(4)))
def test_the_same_heads_pass_and_come_out_the_same(
    implementation: Implementation, fields: Fields, ended: bool, order: list[int]
) -> None:
    """Against the first implementation, which is written in Python."""
    reference: Implementation = IMPLEMENTATIONS[0].values[0]
    head = [*(HEAD[at] for at in order), *fields]
    told = []
    for each in (reference, implementation):
        caller = Caller(each)
        got = caller.send(caller.head(1, head, ended=ended))
        if any(isinstance(event, ConnectionFailed) for event in got):
            got = []  # a stream error or a connection error, as each likes (RFC 9113 section 8.1.1)
        else:
            assert bool(got) != bool(resets(caller.read()))
        told.append(got)
    assert told[0] == told[1]


@pytest.mark.parametrize("place", [b":method", b":scheme", b":authority", b":path", b":protocol", b"host", b"x"])
def test_every_byte_passes_in_the_same_places(implementation: Implementation, place: bytes) -> None:
    def passes(each: Implementation) -> list[list[Event]]:
        # Time flies, so that no allowance is used up.
        caller = Caller(each, clock=itertools.count(0, 1000).__next__)
        told = []
        for stream, byte in zip(itertools.count(1, 2), [*range(256)] * 2, strict=False):
            odd = b"a%cb" % byte if stream % 4 == 1 else b"%c" % byte
            head = [(b":protocol", b"websocket"), *HEAD] if place == b":protocol" else [*HEAD]
            fields = [(name, odd if name == place else value) for name, value in head]
            if place == b":protocol":
                fields[1] = (b":method", b"CONNECT")
            if place == b":path":
                fields[-1] = (place, b"/" + odd)
            if place in (b"x", b"host"):
                fields = [
                    *fields[:2],
                    fields[3],
                    (b"host", odd if place == b"host" else b"g"),
                    (odd, b"1"),
                    (b"v", odd),
                ]
            told.append(caller.send(caller.head(stream, fields, ended=True)))
            if told[-1]:
                caller.codec.send_response(stream, ResponseHead(200, []), ended=True)
                caller.codec.release(stream)
            caller.codec.output()
        return told

    told = passes(implementation)
    assert told == passes(IMPLEMENTATIONS[0].values[0])
    assert 0 < sum(map(len, told)) < 512 or place == b":scheme"


def test_ten_thousand_connections_leave_nothing_behind(implementation: Implementation) -> None:
    if native is None or implementation.server is not native.Http2Server:
        pytest.skip("memory of its own is what the compiled codec has")

    def rounds(number: int) -> None:
        for _ in range(number):
            caller, agent = implementation.server(), implementation.client()
            for _ in range(2):
                caller.receive(agent.output())
                agent.receive(caller.output())
            stream = agent.send_request(RequestHead(b"POST", b"https", b"a", b"/", [(b"x", b"y" * 50)]), ended=False)
            agent.send_data(stream, b"x" * 100_000)
            caller.receive(agent.output())
            caller.send_response(stream, ResponseHead(200, [(b"a", b"b")]), ended=False)
            caller.send_data(stream, b"y" * 100_000)
            agent.receive(caller.output())

    rounds(200)
    gc.collect()
    before = resident_bytes()
    rounds(10_000)
    gc.collect()
    assert resident_bytes() - before < 4 * 1024 * 1024
