"""Each attack on HTTP/2 that has a name: it costs its own connection and is counted; whoever is beside it is served."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.conformance.beside import beside, counted, counts
from tests.conformance.test_http2 import HEADERS
from tests.conftest import RawAgent, RunningGateway, launch, member

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ENHANCE_YOUR_CALM = 0xB
PROTOCOL_ERROR = 0x1
COMPRESSION_ERROR = 0x9
REFUSED_STREAM = 0x7
BLOCK = Encoder().encode(HEADERS)
BODY = b"x" * 300_000


class Abuser:
    """A caller that writes whatever frames it likes, and reads when it likes."""

    def __init__(self, gateway: RunningGateway, **settings: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", gateway.plain_port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = -1
        self.bytes = b""
        numbers = {getattr(SettingsFrame, name): value for name, value in settings.items()}
        self.socket.sendall(PREFACE + SettingsFrame(settings=numbers).serialize())

    def send(self, *frames: Frame | bytes) -> None:
        """Write frames; that the gateway has closed meanwhile is what `ended` looks at."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames))

    def open(self, block: bytes = BLOCK, *flags: str) -> HeadersFrame:
        """HEADERS that open a stream."""
        self.stream += 2
        return HeadersFrame(self.stream, block, flags=["END_HEADERS", *flags])

    def frames(self) -> Iterator[Frame]:
        """What the gateway sends, until it ends the connection."""
        while True:
            while len(self.bytes) >= 9 and len(self.bytes) >= 9 + (size := int.from_bytes(self.bytes[:3], "big")):
                frame, _ = Frame.parse_frame_header(memoryview(self.bytes[:9]))
                frame.parse_body(memoryview(self.bytes[9 : 9 + size]))
                self.bytes = self.bytes[9 + size :]
                yield frame
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = self.socket.recv(65536)
            if not data:
                return
            self.bytes += data

    def ended(self) -> int:
        """The code of the GOAWAY that the connection ended with."""
        codes = [frame.error_code for frame in self.frames() if type(frame).__name__ == "GoAwayFrame"]
        assert codes, "no GOAWAY"
        return codes[-1]


def answer_all(agent: RawAgent, connection: socket.socket) -> None:
    """What the path asks for: ``/large`` 300 kB, ``/head`` a head of 30 kB, ``/never`` nothing, ``/endless`` a body
    without end, ``/events`` the same in events; everything else gets a few bytes."""
    seen = b""
    while True:
        data = connection.recv(65536)
        if not data:
            return
        seen += data
        while b"\r\n\r\n" in seen:
            head, _, seen = seen.partition(b"\r\n\r\n")
            if b" /never " in head:
                continue
            if b" /endless " in head or b" /events " in head:
                kind = b"text/event-stream" if b" /events " in head else b"text/plain"
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n\r\n" % kind)
                while True:
                    connection.sendall(b"data: more of the same\n\n" * 1000)
            body = BODY if b" /large " in head else b"ok"
            field = b"x-large: %b\r\n" % BODY[:30_000] if b" /head " in head else b""
            connection.sendall(b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (field, len(body)) + body)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, certs) -> Iterator[RunningGateway]:
    agent = RawAgent(answer_all)
    running = launch(
        tmp_path_factory.mktemp("gateway"),
        certs,
        [member(agent.port)],
        limits={"maxConcurrentStreams": 64, "bodyTimeout": "3s"},
    )
    yield running
    running.stop()
    agent.close()


def block(path: str = "/run", *more: tuple[str, str]) -> bytes:
    fields = [(name, path if name == ":path" else value) for name, value in HEADERS]
    return Encoder().encode([*fields, *more])


def rapid_reset(abuser: Abuser) -> None:
    """CVE-2023-44487: open a stream, reset it at once, again and again."""
    never = block("/never")
    for _ in range(40):
        for _ in range(25):
            abuser.send(abuser.open(never, "END_STREAM"), RstStreamFrame(abuser.stream, error_code=8))


def made_you_reset_by_window(abuser: Abuser) -> None:
    """CVE-2025-8671: have the gateway reset the stream, by more window than there can be."""
    never = block("/never")
    for _ in range(40):
        for _ in range(10):
            abuser.send(abuser.open(never, "END_STREAM"), WindowUpdateFrame(abuser.stream, window_increment=2**31 - 1))
        time.sleep(0.005)  # no more at once than may be open side by side


def made_you_reset_by_fields(abuser: Abuser) -> None:
    """CVE-2025-8671: have the gateway reset the stream, by fields that may not pass."""
    bad = block("/run", ("connection", "close"))
    for _ in range(40):
        for _ in range(10):
            abuser.send(abuser.open(bad, "END_STREAM"))
        time.sleep(0.005)


def settings_flood(abuser: Abuser) -> None:
    """CVE-2019-9515."""
    abuser.send(*[SettingsFrame(settings={}) for _ in range(5000)])


def settings_of_names_that_nobody_knows(abuser: Abuser) -> None:
    """Each would be remembered."""
    for first in range(0x100, 0x8000, 0x800):
        payload = b"".join(struct.pack(">HL", first + at, 1) for at in range(0x800))
        abuser.send(len(payload).to_bytes(3, "big") + b"\4\0\0\0\0\0" + payload)


def acknowledgement_flood(abuser: Abuser) -> None:
    abuser.send(*[SettingsFrame(flags=["ACK"]) for _ in range(5000)])


def ping_flood(abuser: Abuser) -> None:
    """CVE-2019-9512."""
    abuser.send(*[PingFrame(opaque_data=b"12345678") for _ in range(5000)])


def priority_flood(abuser: Abuser) -> None:
    """CVE-2019-9513."""
    abuser.send(*[PriorityFrame(2 * at + 1, depends_on=0, stream_weight=9) for at in range(5000)])


def window_update_flood(abuser: Abuser) -> None:
    abuser.send(*[WindowUpdateFrame(0, window_increment=1) for _ in range(9000)])


def unknown_frames(abuser: Abuser) -> None:
    abuser.send(b"\0\0\0\xee\0\0\0\0\0" * 5000)


def empty_data(abuser: Abuser) -> None:
    """CVE-2019-9518."""
    abuser.send(abuser.open(block("/never")))
    abuser.send(*[DataFrame(abuser.stream) for _ in range(5000)])


def padding_alone(abuser: Abuser) -> None:
    abuser.send(abuser.open(block("/never")))
    abuser.send(*[DataFrame(abuser.stream, flags=["PADDED"], pad_length=0) for _ in range(5000)])


def continuation_flood(abuser: Abuser) -> None:
    """VU#421644: a header block that does not end, in frames of next to nothing."""
    abuser.send(HeadersFrame(1, BLOCK), *[ContinuationFrame(1, b"\x00\x01x\x01y") for _ in range(5000)])


def empty_continuations(abuser: Abuser) -> None:
    abuser.send(HeadersFrame(1, BLOCK), *[ContinuationFrame(1, b"") for _ in range(5000)])


def endless_header_block(abuser: Abuser) -> None:
    """CVE-2024-27316: a header block that does not end, in frames as large as may be."""
    abuser.send(HeadersFrame(1, BLOCK), *[ContinuationFrame(1, b"\x00\x01x\x7f\x81\xff\x7e" * 2000) for _ in range(60)])


def hpack_bomb(abuser: Abuser) -> None:
    """CVE-2016-6581: a few bytes that stand for megabytes, by the dynamic table."""
    seeded = Encoder().encode([*HEADERS, ("x-bomb", "y" * 3900)], huffman=False)
    abuser.send(abuser.open(seeded + b"\xbe" * 10_000, "END_STREAM"))


def table_growth(abuser: Abuser) -> None:
    """A dynamic table larger than we have allowed."""
    abuser.send(abuser.open(b"\x3f\xe1\xff\x3f" + BLOCK, "END_STREAM"))


def stream_flood(abuser: Abuser) -> None:
    """Streams beyond the limit that was announced."""
    never = block("/never")
    for _ in range(100):
        abuser.send(*[abuser.open(never, "END_STREAM") for _ in range(50)])


def resets_of_streams_long_over(abuser: Abuser) -> None:
    abuser.send(abuser.open(BLOCK, "END_STREAM"))
    abuser.send(*[RstStreamFrame(1, error_code=8) for _ in range(5000)])


def data_after_a_reset(abuser: Abuser) -> None:
    """Each is answered with another RST_STREAM."""
    abuser.send(abuser.open(block("/never")), RstStreamFrame(1, error_code=8))
    abuser.send(*[DataFrame(1, b"x") for _ in range(5000)])


def drip_of_window(abuser: Abuser) -> None:
    """CVE-2019-9511: a large answer asked for, and taken a byte at a time."""
    abuser.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1}))
    abuser.send(abuser.open(block("/large"), "END_STREAM"))
    for _ in range(600):
        abuser.send(WindowUpdateFrame(1, window_increment=1))
        time.sleep(0.001)


ATTACKS: list[tuple[str, Callable[[Abuser], None]]] = [
    ("rapid-reset", rapid_reset),
    ("rapid-reset", resets_of_streams_long_over),
    ("made-you-reset", made_you_reset_by_window),
    ("made-you-reset", made_you_reset_by_fields),
    ("made-you-reset", data_after_a_reset),
    ("settings-flood", settings_flood),
    ("settings-flood", settings_of_names_that_nobody_knows),
    ("settings-flood", acknowledgement_flood),
    ("ping-flood", ping_flood),
    ("priority-flood", priority_flood),
    ("window-update-flood", window_update_flood),
    ("unknown-frames", unknown_frames),
    ("empty-frames", empty_data),
    ("empty-frames", padding_alone),
    ("continuation-flood", continuation_flood),
    ("continuation-flood", empty_continuations),
    ("header-list-too-large", endless_header_block),
    ("header-list-too-large", hpack_bomb),
    ("stream-flood", stream_flood),
    ("tiny-windows", drip_of_window),
]


@pytest.mark.parametrize(("reason", "attack"), ATTACKS, ids=[attack.__name__ for _, attack in ATTACKS])
def test_an_attack_ends_with_its_connection_and_is_told_by_name(
    gateway: RunningGateway, reason: str, attack: Callable[[Abuser], None]
) -> None:
    with beside(gateway), counts(gateway, "phoenixflight_abuse_total", listener="local", reason=reason):
        abuser = Abuser(gateway)
        attack(abuser)
        # nghttp2 does not wait for the end of a value that says it is 2 MB long.
        codes = {ENHANCE_YOUR_CALM, COMPRESSION_ERROR} if attack is endless_header_block else {ENHANCE_YOUR_CALM}
        assert abuser.ended() in codes


def test_a_table_larger_than_allowed_ends_the_connection(gateway: RunningGateway) -> None:
    with beside(gateway), counts(gateway, "phoenixflight_abuse_total", reason="header-table-growth"):
        abuser = Abuser(gateway)
        table_growth(abuser)
        assert abuser.ended() in (PROTOCOL_ERROR, COMPRESSION_ERROR)


def test_a_frame_longer_than_announced_ends_the_connection_before_it_is_held(gateway: RunningGateway) -> None:
    with beside(gateway, max_growth_bytes=8 * 1024 * 1024), counts(gateway, "phoenixflight_abuse_total"):
        abuser = Abuser(gateway)
        abuser.send(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", b"x" * 16_000_000)
        assert abuser.ended() == 0x6  # FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    ("reason", "more"),
    [
        ("header-list-too-large", [("x-large", "y" * 70_000)]),
        ("too-many-headers", [(f"x-{at}", "y") for at in range(101)]),
    ],
)
def test_a_header_section_over_a_limit_is_431_and_the_connection_goes_on(
    gateway: RunningGateway, reason: str, more: list[tuple[str, str]]
) -> None:
    with beside(gateway), counts(gateway, "phoenixflight_abuse_total", reason=reason):
        abuser = Abuser(gateway)
        large = block("/run", *more)
        pieces = [large[at : at + 16384] for at in range(0, len(large), 16384)]
        abuser.send(HeadersFrame(1, pieces[0], flags=["END_STREAM", *(["END_HEADERS"] if len(pieces) == 1 else [])]))
        for at, piece in enumerate(pieces[1:], 2):
            abuser.send(ContinuationFrame(1, piece, flags=["END_HEADERS"] if at == len(pieces) else []))
        answers = (frame for frame in abuser.frames() if isinstance(frame, (HeadersFrame, DataFrame)))
        assert isinstance(next(answers), HeadersFrame)
        assert b"urn:phoenixflight:headers-too-large" in next(answers).data
        abuser.stream = 1
        abuser.send(abuser.open(BLOCK, "END_STREAM"))
        assert next(frame for frame in answers if frame.stream_id == 3)


def test_a_stream_beyond_the_limit_is_refused_and_the_others_go_on(gateway: RunningGateway) -> None:
    abuser = Abuser(gateway)
    abuser.send(*[abuser.open(block("/never"), "END_STREAM") for _ in range(70)])
    refused = [next(frame for frame in abuser.frames() if isinstance(frame, RstStreamFrame)) for _ in range(6)]
    assert [frame.stream_id for frame in refused] == [129, 131, 133, 135, 137, 139]
    assert {frame.error_code for frame in refused} == {REFUSED_STREAM}
    abuser.send(RstStreamFrame(1, error_code=8), abuser.open(BLOCK, "END_STREAM"))
    assert next(frame for frame in abuser.frames() if isinstance(frame, HeadersFrame)).stream_id == 141


@pytest.mark.parametrize("window", [0, 1])
def test_windows_that_stay_shut_hold_the_agents_back_and_no_memory(gateway: RunningGateway, window: int) -> None:
    with beside(gateway):
        abuser = Abuser(gateway, INITIAL_WINDOW_SIZE=window)
        abuser.send(*[abuser.open(block("/large"), "END_STREAM") for _ in range(64)])
        seen = 0
        for frame in abuser.frames():
            seen += isinstance(frame, HeadersFrame)
            if seen == 64:
                break
        time.sleep(0.3)
    abuser.socket.close()


def test_who_reads_no_answers_is_not_read_any_more_and_reset_in_the_end(gateway: RunningGateway) -> None:
    before = counted(gateway, "phoenixflight_handoffs_total", outcome="completed")
    with (
        counts(gateway, "phoenixflight_abuse_total", reason="slow-reader"),
        beside(gateway, max_growth_bytes=32 * 1024 * 1024),
    ):
        abuser = Abuser(gateway)
        head = block("/head")
        for _ in range(50):  # no more at once than may be open side by side
            abuser.send(*[abuser.open(head, "END_STREAM") for _ in range(16)])
            time.sleep(0.02)
    answered = counted(gateway, "phoenixflight_handoffs_total", outcome="completed") - before
    assert 0 < answered < 600  # of 800, and those of who is beside
    abuser.socket.close()


def test_a_busy_caller_with_many_pings_updates_and_cancels_is_no_abuser(gateway: RunningGateway) -> None:
    before = counted(gateway, "phoenixflight_abuse_total")
    caller = Abuser(gateway)
    frames = caller.frames()
    for turn in range(300):
        caller.send(caller.open(BLOCK, "END_STREAM"), PingFrame(opaque_data=b"12345678"))
        wanted = caller.stream
        next(frame for frame in frames if isinstance(frame, DataFrame) and frame.stream_id == wanted)
        caller.send(WindowUpdateFrame(0, window_increment=2), WindowUpdateFrame(wanted, window_increment=2))
        if turn % 2:
            caller.send(caller.open(block("/never"), "END_STREAM"), RstStreamFrame(caller.stream, error_code=8))
    assert counted(gateway, "phoenixflight_abuse_total") == before
    caller.socket.close()
