"""HTTP/2 (RFC 9113) on h2, or on jh2, its drop-in fork with a native HPACK, where that is installed.

Field checks are ours, so that a bad field costs its stream and not the connection (RFC 9113 section 8.1.1), and
GOAWAY is ours, because the library ends a connection with it while open streams may still finish.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.messages import AUTHORITY, Fields, RequestHead, ResponseHead
from gateway.proxy.codec.bounded import Abused, BoundedConnection
from gateway.proxy.codec.budget import FloodGuard, Kind
from gateway.proxy.codec.events import (
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
from gateway.proxy.codec.library import h2
from gateway.proxy.codec.trailers import for_agents, for_callers

_ev = h2.events
_Codes = h2.errors.ErrorCodes
_Setting = h2.settings.SettingCodes

STREAM_WINDOW_BYTES = 256 * 1024
"""What a peer may send on a stream before we have passed it on; the bound on what we hold for it."""
CONNECTION_WINDOW_BYTES = 1024 * 1024
"""Credit for the connection is given back on receipt, so that one slow stream never stops the others."""
DISCARD_BYTES = 1024 * 1024
"""How much of a request is still read after its answer was sent, before the stream is reset."""
ENCODER_TABLE_BYTES = 4096
"""What we use of the HPACK table that a peer offers (RFC 7541 section 4.2): encoders search it from end to end."""
HELD_BYTES = 8 * 1024 * 1024
"""How much of our answers a connection may leave waiting for window; while it is more, new streams are refused."""
SMALL_BYTES = 512
"""A frame of less DATA, with more waiting behind it, counts as the work of a tiny window."""
JOINED_BYTES = 16 * 1024
"""DATA frames of less than `SMALL_BYTES` that follow each other in a read become one piece of up to this."""
_DEFAULT_WINDOW = 65535

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 section 5.5; HTTP/1.1 readers differ about them
_BAD_PATH = re.compile(rb"[\x00-\x20\x7f#]")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONNECTION_SPECIFIC = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_GOOD_NAMES: set[bytes] = set()
_MAX_GOOD_NAMES = 1024
_HEADERS_FRAME = 1
_GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00%b%b"
"""A GOAWAY frame, but for the last stream that it speaks of, and why."""
_ALL_STREAMS = b"\x7f\xff\xff\xff"
_NO_ERROR = bytes(4)
_LAST_CALL = b"lastcall"
_PING_LAST_CALL = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + _LAST_CALL


class _Malformed(ValueError):
    """A header section that RFC 9113 section 8 calls malformed."""


class _TooLarge(_Malformed):
    """A header section over its limits: which one, and the limit in words."""

    def __init__(self, abuse: str, detail: str) -> None:
        super().__init__(detail)
        self.abuse = abuse
        self.detail = detail


class _Limits:
    """Bounds of a header section: the bytes of its names and values, and its fields."""

    def __init__(self, max_header_bytes: int, max_headers: int) -> None:
        self.max_header_bytes = max_header_bytes
        self.max_headers = max_headers


def _check_fields(fields: Fields) -> int:
    """RFC 9113 section 8.2: names and values that may not pass; gives the bytes of those that may."""
    length = False
    size = 0
    for name, value in fields:
        size += len(name) + len(value)
        if name not in _GOOD_NAMES:
            if _NAME.fullmatch(name) is None or name in _CONNECTION_SPECIFIC:
                raise _Malformed
            if len(_GOOD_NAMES) < _MAX_GOOD_NAMES and len(name) < 64:
                _GOOD_NAMES.add(name)
        if name == b"te" and value.lower() != b"trailers":
            raise _Malformed
        if name == b"content-length":
            # One, of digits (RFC 9110 section 8.6): the library counts by the first, HTTP/1.1 might by another.
            if length or not value.isdigit() or (value[0] == 0x30 and value != b"0"):
                raise _Malformed
            length = True
        if value and (value[0] in b" \t" or value[-1] in b" \t"):
            raise _Malformed
    if _BAD_VALUE.search(b" ".join([value for _, value in fields])):
        raise _Malformed
    return size


def _split(headers: Fields, limits: _Limits) -> tuple[dict[bytes, bytes], Fields]:
    """Pseudo-header fields and the rest; the pseudo ones come first and once (RFC 9113 section 8.3)."""
    pseudo: dict[bytes, bytes] = {}
    at = 0
    for name, value in headers:
        if name[:1] != b":":
            break
        if name in pseudo:
            raise _Malformed
        pseudo[name] = value
        at += 1
    fields = headers[at:]
    size = _check_fields(fields)
    if size > limits.max_header_bytes - sum(map(len, pseudo.values())):
        raise _TooLarge("header-list-too-large", f"the header section is over {limits.max_header_bytes} bytes")
    if len(fields) > limits.max_headers:
        _count(fields, limits)
    return pseudo, fields


def _count(fields: Fields, limits: _Limits) -> None:
    """Hold more fields than the limit against it as HTTP/1.1 would have them: with one cookie."""
    cookies = sum(name == b"cookie" for name, _ in fields)
    if len(fields) - max(0, cookies - 1) > limits.max_headers:
        raise _TooLarge("too-many-headers", f"there are more than {limits.max_headers} header fields")


def _abuse_of(error: Exception) -> str:
    """What a protocol error is called, where it is one of the attacks that have a name."""
    if isinstance(error, h2.exceptions.DenialOfServiceError):
        return "header-list-too-large"
    # The two libraries' words for RFC 7541 section 6.3's limit.
    words = str(error)
    return "header-table-growth" if "InvalidMaxDynamicSize" in words or "table size" in words else ""


_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})


def _request_head(headers: Fields, limits: _Limits) -> RequestHead:
    pseudo, fields = _split(headers, limits)
    if not pseudo.keys() <= _REQUEST_PSEUDO:
        raise _Malformed
    method = pseudo.get(b":method", b"")
    if _TOKEN.fullmatch(method) is None:
        raise _Malformed
    scheme = pseudo.get(b":scheme", b"")
    path = pseudo.get(b":path", b"")
    authority = pseudo.get(b":authority")
    protocol = pseudo.get(b":protocol", b"")
    if method == b"CONNECT" and not protocol:
        if scheme or path or not authority:
            raise _Malformed
    elif (
        scheme not in (b"http", b"https")
        or not (path[:1] == b"/" or path == b"*")
        or _BAD_PATH.search(path)
        or (protocol and (method != b"CONNECT" or _TOKEN.fullmatch(protocol) is None))
    ):
        raise _Malformed
    cookies = 0
    hosts = 0
    for name, _ in fields:
        if name == b"cookie":
            cookies += 1
        elif name == b"host":
            hosts += 1
    if hosts:
        host = next(value for name, value in fields if name == b"host")
        if hosts > 1 or (authority is not None and authority.lower() != host.lower()):
            raise _Malformed  # RFC 9113 section 8.3.1: they may not disagree
        authority = host
        fields = [item for item in fields if item[0] != b"host"]
    if not authority or AUTHORITY.fullmatch(authority) is None:
        raise _Malformed
    if cookies > 1:  # RFC 9113 section 8.2.3
        joined = b"; ".join(value for name, value in fields if name == b"cookie")
        fields = [item for item in fields if item[0] != b"cookie"]
        fields.append((b"cookie", joined))
    return RequestHead(method, scheme, authority, path, fields, protocol)


def _response_head(headers: Fields, limits: _Limits) -> ResponseHead:
    pseudo, fields = _split(headers, limits)
    status = pseudo.get(b":status", b"")
    if len(pseudo) != 1 or len(status) != 3 or not status.isdigit() or status < b"100" or status == b"101":
        raise _Malformed
    if status < b"200":  # RFC 9110 section 8.6: an interim response has no content
        fields = [item for item in fields if item[0] != b"content-length"]
    return ResponseHead(int(status), fields)


class _Http2:
    """What both sides share; `_handlers` maps the library's events to ours."""

    multiplexed = True
    name = "h2"
    aborted = False

    def __init__(
        self, *, client: bool, max_streams: int, max_header_bytes: int, max_headers: int, clock: Callable[[], float]
    ) -> None:
        self.finished = False
        self._limits = _Limits(max_header_bytes, max_headers)
        self._guard = FloodGuard(clock)
        self._connection: Any = BoundedConnection(
            h2.config.H2Configuration(
                client_side=client,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            ),
            self._guard,
            # Between the limit and twice as much a stream may be answered 431: beyond, HPACK's state is lost.
            2 * max_header_bytes,
            self._on_goaway,
        )
        connection = self._connection
        settings = {
            _Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            _Setting.MAX_HEADER_LIST_SIZE: max_header_bytes,
        }
        if client:
            settings[_Setting.ENABLE_PUSH] = 0
            settings[_Setting.MAX_CONCURRENT_STREAMS] = 0  # of the agent's own: the library would keep each
        else:
            settings[_Setting.MAX_CONCURRENT_STREAMS] = max_streams
            settings[_Setting.ENABLE_CONNECT_PROTOCOL] = 1
        connection.local_settings = h2.settings.Settings(client=client, initial_values=settings)
        connection.initiate_connection()
        connection.increment_flow_control_window(CONNECTION_WINDOW_BYTES - _DEFAULT_WINDOW)
        self._extra: list[bytes] = []
        self._open: set[int] = set()
        self._debts: dict[int, int] = {}
        """Received and passed on, but not yet given back as window, by stream."""
        self._connection_debt = 0
        self._tail: tuple[int, bytes] | None = None
        """The last piece of body, held back for a moment: the frame that carries it may end the stream, too."""
        self._queued: dict[int, deque[memoryview]] = {}
        self._held = 0
        """Bytes in `_queued`."""
        self._ending: dict[int, Fields | None] = {}
        self._receiving: set[int] = set()
        """Streams on which the peer has not ended its message."""
        self._discarding: dict[int, int] = {}
        """Streams already answered whose request still comes in: how much more of it is taken."""
        self._released: set[int] = set()
        """Streams whose exchange is over, with data of ours still queued."""
        self._closing = False
        self._events: list[Event] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            _ev.DataReceived: self._on_data,
            _ev.StreamEnded: self._on_ended,
            _ev.TrailersReceived: self._on_trailers,
            _ev.StreamReset: self._on_reset,
            _ev.WindowUpdated: self._on_window,
            _ev.RemoteSettingsChanged: self._on_settings,
        }
        self._headed: set[int] = set()
        """Streams whose head, in the batch being read, already said that they ended."""

    # -- reading ----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        if self.finished:
            return []
        try:
            happened = self._connection.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            return self._fail(str(error) or type(error).__name__, _abuse_of(error))
        except Abused as abused:
            return self._calm(abused.abuse)
        handlers = self._handlers
        for event in happened:
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)
        self._headed.clear()
        if self._guard.abuse:
            return self._calm(self._guard.abuse)
        if self._connection.overlong:
            return self._fail("a frame longer than SETTINGS_MAX_FRAME_SIZE", "", _Codes.FRAME_SIZE_ERROR)
        events, self._events = self._events, []
        return events

    def _calm(self, abuse: str) -> list[Event]:
        return self._fail(f"too much of what costs you nothing: {abuse}", abuse, _Codes.ENHANCE_YOUR_CALM)

    def _fail(self, detail: str, abuse: str, code: int = 0) -> list[Event]:
        """End the connection; `code` makes a GOAWAY, where the library has not said one."""
        self.finished = True
        if code:
            last = self._connection.highest_inbound_stream_id
            self._extra.append(_GOAWAY % (last.to_bytes(4, "big"), code.to_bytes(4, "big")))
        events, self._events = self._events, []
        return [*events, ConnectionFailed(detail, abuse=abuse)]

    def receive_eof(self) -> list[Event]:
        self.finished = True
        events: list[Event] = [StreamReset(stream) for stream in sorted(self._open)]
        self._open.clear()
        return events

    def _on_data(self, event: Any) -> None:
        stream, size = event.stream_id, event.flow_controlled_length
        self._connection_debt += size
        if self._connection_debt >= CONNECTION_WINDOW_BYTES // 2:
            self._connection.increment_flow_control_window(self._connection_debt)
            self._connection_debt = 0
        if stream in self._open:
            if event.data:
                self._take_data(stream, event.data, size)
            else:
                # An empty frame (to end the stream, or padding alone) is no piece of a body: as a chunk of HTTP/1.1 it
                # would end the message.
                self.consumed(stream, size)
        elif size and stream in self._discarding:
            self._discard(stream, size)

    def _take_data(self, stream: int, data: bytes, size: int) -> None:
        events = self._events
        if size < SMALL_BYTES and events:
            # Many small frames in a read are one piece for those behind us, so that each costs no more than it must.
            last = events[-1]
            if type(last) is DataReceived and last.stream == stream and last.size < JOINED_BYTES:
                events[-1] = DataReceived(stream, last.data + data, last.size + size)
                return
        events.append(DataReceived(stream, data, size))

    def _on_ended(self, event: Any) -> None:
        stream = event.stream_id
        self._receiving.discard(stream)
        self._discarding.pop(stream, None)
        if stream in self._open and stream not in self._headed:
            self._events.append(Ended(stream))

    def _on_trailers(self, event: Any) -> None:
        stream = event.stream_id
        self._discarding.pop(stream, None)
        if stream not in self._open:
            return
        fields: Fields = list(event.headers)
        try:
            size = _check_fields(fields)
            self._check_length(stream)
        except _Malformed:
            self._refuse_stream(stream)
            return
        if size > self._limits.max_header_bytes or len(fields) > self._limits.max_headers:
            self._refuse_stream(stream)
            return
        self._headed.add(stream)
        self._events.append(TrailersReceived(stream, self._sound_trailers(fields)))

    def _check_length(self, stream: int) -> None:
        """RFC 9113 section 8.1.1: a message that ends is as long as it said.

        The library looks only where DATA ends it; over HTTP/1.1 what is missing would be taken from the next message.
        """
        known = self._connection.streams.get(stream)
        if known is None or known._expected_content_length not in (None, known._actual_content_length):
            raise _Malformed

    def _on_reset(self, event: Any) -> None:
        stream = event.stream_id
        self._discarding.pop(stream, None)
        if not event.remote_reset:
            self._guard.spend(Kind.PROVOKED_RESET)
        if stream in self._open:
            self._forget(stream)
            self._events.append(StreamReset(stream, untouched=event.error_code == _Codes.REFUSED_STREAM))

    def _on_window(self, event: Any) -> None:
        stream = event.stream_id
        for each in [stream] if stream else list(self._queued):
            self._drain(each)

    def _on_settings(self, event: Any) -> None:
        encoder = self._connection.encoder
        encoder.header_table_size = min(encoder.header_table_size, ENCODER_TABLE_BYTES)
        for each in list(self._queued):
            self._drain(each)

    def _on_goaway(self, last: int) -> None:
        self._closing = True
        for stream in sorted(self._open):
            if self._ours(stream) and stream > last:
                self._forget(stream)
                self._events.append(StreamReset(stream, untouched=True))
        self._events.append(GoAwayReceived())

    def _ours(self, stream: int) -> bool:
        """Whether this side opened `stream`."""
        raise NotImplementedError

    def _last_stream(self) -> bytes:
        """The last stream of the peer's that is served, as a GOAWAY has it."""
        return _ALL_STREAMS

    def _sound_trailers(self, fields: Fields) -> Fields:
        """Trailers without what may not stand there."""
        raise NotImplementedError

    def _stop_receiving(self, stream: int) -> None:
        """The rest of the peer's message is not wanted."""
        self._reset(stream, _Codes.CANCEL)

    def _discard(self, stream: int, size: int) -> None:
        """Take and drop data of a stream that is answered, until it has cost enough."""
        left = self._discarding[stream] - size
        if left < 0:
            del self._discarding[stream]
            self._reset(stream, _Codes.NO_ERROR)
            return
        self._discarding[stream] = left
        self._grant(stream, size)

    def _grant(self, stream: int, size: int) -> None:
        """Let the peer send `size` more on `stream`, unless it has ended there and needs no window."""
        known = self._connection.streams.get(stream)
        if known is not None and not known.closed:
            self._connection.increment_flow_control_window(size, stream)

    def _refuse_stream(self, stream: int) -> None:
        """Answer a stream that broke the rules with a stream error."""
        known = stream in self._open
        self._guard.spend(Kind.PROVOKED_RESET)
        self._forget(stream)
        self._reset(stream, _Codes.PROTOCOL_ERROR)
        if known:
            self._events.append(StreamReset(stream))

    # -- writing ----------------------------------------------------------------------------------------

    def output(self) -> bytes:
        if self._tail is not None:
            self._settle()
        data: bytes = self._connection.data_to_send()
        if self._extra:
            data += b"".join(self._extra)
            self._extra.clear()
        return data

    def send_data(self, stream: int, data: bytes) -> bool:
        if stream not in self._open or not data:
            return True
        queue = self._queued.get(stream)
        if queue is not None:
            queue.append(memoryview(data))
            self._held += len(data)
            return False
        if self._tail is not None:
            self._settle()
        if self._fits(stream, data):
            self._tail = stream, data
            return True
        return self._send(stream, data)

    def _fits(self, stream: int, data: bytes) -> bool:
        """Whether one frame can carry `data` now."""
        connection = self._connection
        size = len(data)
        return bool(size <= connection.max_outbound_frame_size and size <= connection.local_flow_control_window(stream))

    def _settle(self) -> None:
        """Send the piece held back, now that it is known not to be the last of its stream."""
        assert self._tail is not None
        (stream, data), self._tail = self._tail, None
        self._send(stream, data)

    def _send(self, stream: int, data: bytes) -> bool:
        """Send a piece; ``False`` when some of it is queued."""
        rest = self._push(stream, memoryview(data))
        if rest:
            self._queued[stream] = deque((rest,))
            self._held += len(rest)
        return not rest

    def _push(self, stream: int, data: memoryview) -> memoryview:
        """Send what the window lets through; gives the rest."""
        connection = self._connection
        room = min(len(data), connection.local_flow_control_window(stream))
        frame = connection.max_outbound_frame_size
        sent = 0
        while sent < room:
            piece = data[sent : min(sent + frame, room)]
            connection.send_data(stream, piece.tobytes())
            sent += len(piece)
        if room == len(data) or room >= SMALL_BYTES:
            self._guard.work += 1
        elif room > 0:
            self._guard.spend(Kind.TINY_WINDOW)  # a flood of them ends the connection at its next frame
        return data[sent:]

    def _drain(self, stream: int) -> None:
        queue = self._queued.get(stream)
        if queue is None:
            return
        while queue:
            rest = self._push(stream, queue[0])
            self._held -= len(queue[0]) - len(rest)
            if rest:
                queue[0] = rest
                return
            queue.popleft()
        del self._queued[stream]
        if stream in self._ending:
            self._finish(stream, self._ending.pop(stream))
        else:
            self._events.append(Writable(stream))

    def end(self, stream: int, trailers: Fields | None = None) -> None:
        if stream not in self._open:
            return
        tail = self._tail
        if tail is not None:
            if tail[0] == stream and not trailers and self._fits(stream, tail[1]):
                self._tail = None
                self._guard.work += 1
                self._connection.send_data(stream, tail[1], end_stream=True)
                return
            self._settle()
        if stream in self._queued:
            self._ending[stream] = trailers
        else:
            self._finish(stream, trailers)

    def _finish(self, stream: int, trailers: Fields | None) -> None:
        self._guard.work += 1
        if trailers:
            self._connection.send_headers(stream, trailers, end_stream=True)
        else:
            self._connection.end_stream(stream)
        if stream in self._released:
            self.release(stream)

    def release(self, stream: int) -> list[Event]:
        if stream in self._queued:
            self._released.add(stream)
            return []
        if stream in self._open:
            unwanted = stream in self._receiving
            self._forget(stream)
            if unwanted:
                self._stop_receiving(stream)
        if self._closing and not self._open:
            self.finished = True
        return []

    def reset(self, stream: int, *, cancelled: bool = False) -> None:
        if stream in self._open:
            if not cancelled and self._tail is not None:
                self._settle()
            self._forget(stream)
            self._reset(stream, _Codes.CANCEL if cancelled else _Codes.INTERNAL_ERROR)

    def _reset(self, stream: int, code: int) -> None:
        try:
            self._connection.reset_stream(stream, code)
        except h2.exceptions.ProtocolError:
            return  # the peer closed it first: nothing is left to reset

    def consumed(self, stream: int, size: int) -> None:
        if stream not in self._open:
            return
        debt = self._debts.get(stream, 0) + size
        if debt >= STREAM_WINDOW_BYTES // 4:
            self._grant(stream, debt)
            debt = 0
        self._debts[stream] = debt

    def _forget(self, stream: int) -> None:
        if self._tail is not None and self._tail[0] == stream:
            self._tail = None
        self._open.discard(stream)
        self._debts.pop(stream, None)
        queue = self._queued.pop(stream, None)
        if queue is not None:
            self._held -= sum(map(len, queue))
        self._ending.pop(stream, None)
        self._receiving.discard(stream)
        self._released.discard(stream)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._extra.append(_GOAWAY % (self._last_stream(), _NO_ERROR))
        if not self._open:
            self.finished = True


class Http2Server(_Http2):
    """The caller's side: reads requests, writes responses."""

    def __init__(
        self,
        *,
        max_streams: int = 256,
        max_header_bytes: int = 65536,
        max_headers: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            client=False,
            max_streams=max_streams,
            max_header_bytes=max_header_bytes,
            max_headers=max_headers,
            clock=clock,
        )
        self._handlers[_ev.RequestReceived] = self._on_request
        self._handlers[_ev.PingAckReceived] = self._on_ping_ack
        self._leaving = False

    backlogged = False

    @property
    def unfinished(self) -> int:
        buffer = self._connection.incoming_buffer
        if buffer._headers_buffer:
            stream: int = buffer._headers_buffer[0].stream_id
            return stream
        # A frame of which only a part is there: its type and stream stand in its first 9 bytes (RFC 9113 section 4.1).
        partial = buffer._data
        if len(partial) < 9 or partial[3] != _HEADERS_FRAME:
            return 0
        return int.from_bytes(partial[5:9], "big")

    def _ours(self, stream: int) -> bool:
        return False

    def _last_stream(self) -> bytes:
        last: int = self._connection.highest_inbound_stream_id
        return last.to_bytes(4, "big")

    def announce(self) -> None:
        # RFC 9113 section 6.8: first a GOAWAY that refuses nothing; once the PING behind it is answered, all streams
        # that the peer opened before it knew are here.
        if not (self._leaving or self._closing):
            self._leaving = True
            self._extra.append(_GOAWAY % (_ALL_STREAMS, _NO_ERROR) + _PING_LAST_CALL)

    def _on_ping_ack(self, event: Any) -> None:
        if self._leaving and event.ping_data == _LAST_CALL:
            self.close()

    def _on_request(self, event: Any) -> None:
        stream = event.stream_id
        if self._closing:
            self._reset(stream, _Codes.REFUSED_STREAM)
            return
        if self._held > HELD_BYTES:
            self._guard.spend(Kind.REFUSED)
            self._reset(stream, _Codes.REFUSED_STREAM)
            return
        known = self._connection.streams.get(stream)
        if known is None or known.closed:
            return  # it was reset in the same read: nothing is begun for it
        ended = event.stream_ended is not None
        begun: Event
        try:
            begun = RequestReceived(stream, _request_head(event.headers, self._limits), ended)
            if ended:
                self._check_length(stream)
        except _TooLarge as error:
            self._guard.spend(Kind.OVERSIZED)
            begun = RequestRefused(stream, error.detail, error.abuse)
        except _Malformed:
            self._refuse_stream(stream)
            return
        self._open.add(stream)
        if ended:
            self._headed.add(stream)
        else:
            self._receiving.add(stream)
        self._events.append(begun)

    def _sound_trailers(self, fields: Fields) -> Fields:
        return for_agents(fields)

    def _stop_receiving(self, stream: int) -> None:
        # RFC 9113 section 8.1 lets a server reset with NO_ERROR now, but many clients, still sending, then report the
        # reset and never look at the answer: take a bounded rest of the request first.
        self._discarding[stream] = DISCARD_BYTES

    def send_response(self, stream: int, head: ResponseHead, *, ended: bool) -> None:
        if stream in self._open:
            self._guard.work += ended
            headers = [(b":status", b"%d" % head.status), *head.fields]
            self._connection.send_headers(stream, headers, end_stream=ended)


class Http2Client(_Http2):
    """The agent's side: writes requests, reads responses."""

    def __init__(
        self,
        *,
        max_streams: int = 100,
        max_header_bytes: int = 65536,
        max_headers: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            client=True,
            max_streams=max_streams,
            max_header_bytes=max_header_bytes,
            max_headers=max_headers,
            clock=clock,
        )
        self._max_streams = max_streams
        self._handlers[_ev.ResponseReceived] = self._on_response
        self._handlers[_ev.InformationalResponseReceived] = self._on_interim

    @property
    def room(self) -> int:
        if self.finished or self._closing:
            return 0
        allowed: int = self._connection.remote_settings.max_concurrent_streams
        return min(allowed, self._max_streams) - len(self._open)

    def _ours(self, stream: int) -> bool:
        return True

    def ping(self) -> None:
        self._connection.ping(bytes(8))

    def _sound_trailers(self, fields: Fields) -> Fields:
        return for_callers(fields)

    def send_request(self, head: RequestHead, *, ended: bool) -> int:
        connection = self._connection
        stream: int = connection.get_next_available_stream_id()
        headers = [
            (b":method", head.method),
            (b":scheme", head.scheme),
            (b":authority", head.authority),
            (b":path", head.path),
        ]
        if head.protocol:
            headers.append((b":protocol", head.protocol))
        connection.send_headers(stream, headers + head.fields, end_stream=ended)
        self._open.add(stream)
        self._receiving.add(stream)
        return stream

    def _on_response(self, event: Any) -> None:
        self._respond(event, ended=event.stream_ended is not None)

    def _on_interim(self, event: Any) -> None:
        self._respond(event, ended=False)

    def _respond(self, event: Any, *, ended: bool) -> None:
        stream = event.stream_id
        if stream not in self._open:
            return
        try:
            head = _response_head(event.headers, self._limits)
            if ended and head.status not in (204, 304):
                self._check_length(stream)
        except _Malformed:
            self._refuse_stream(stream)
            return
        if ended:
            self._guard.work += 1
            self._headed.add(stream)
        self._events.append(ResponseReceived(stream, head, ended))
