"""HTTP/1.1 (RFC 9112) on llhttp, by way of httptools.

llhttp runs in its strict mode: both lengths, a bad chunk, a bare LF, obs-fold and their like are errors.  What it
leaves to its user is done here: one Host, the forms of the request target, framing of what we send, holding back
pipelined requests, and the two shapes of an upgrade (``Upgrade: websocket`` outside, RFC 8441 inside).

A message whose head is whole and plain need not go through llhttp, with a call for each of its parts: `plain` reads
the head, and its body is so many bytes.  llhttp then stays where it is, at the beginning of a message, and the events
are those that it would have led to.  Whatever is unusual, or wrong, is llhttp's to judge.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import ClassVar

import httptools

from gateway.headers import field_value
from gateway.messages import AUTHORITY, Fields, RequestHead, ResponseHead
from gateway.proxy.codec.events import (
    ConnectionFailed,
    DataReceived,
    Ended,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Writable,
)
from gateway.proxy.codec.plain import read_request, read_response, write_request, write_response
from gateway.proxy.codec.trailers import for_agents, for_callers

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"transfer-encoding",
        b"upgrade",
    }
)
_REASON = {status.value: status.phrase.encode() for status in HTTPStatus}
_STATUS_LINE = {code: b"HTTP/1.1 %d %s\r\n" % (code, phrase) for code, phrase in _REASON.items()}
_BODILESS_METHODS = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"})
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_CHUNKED = b"transfer-encoding: chunked\r\n"
_NO_BODY = b"content-length: 0\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_MAX_HELD = 4
"""Events of pipelined requests, a read of body each at most, at which no more is read."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"host"})
"""What no ``connection`` field may take off a message on its way."""
MAX_PIPELINED = 256
"""Requests that a caller may send before the first of them is answered."""
MAX_BLANK_BYTES = 1024
"""Empty lines in front of a request (RFC 9112 section 2.2 lets us skip some)."""
CHUNK_OVERHEAD_BYTES = 16 * 1024
"""Of chunk sizes, chunk extensions and trailers in one body, beyond 16 bytes for each byte of data."""
SMALL_BYTES = 512
JOINED_BYTES = 16 * 1024
"""Pieces of body smaller than the one that follow each other in a read become one of up to the other."""


def _accept_for(key: bytes) -> bytes:
    """``sec-websocket-accept`` for a key, RFC 6455 section 4.2.2."""
    return base64.b64encode(hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())


def _end_to_end(fields: Fields) -> Fields:
    """`fields` without those that concern this connection alone (RFC 9110 section 7.6.1)."""
    nominated: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            nominated.update(token.strip().lower() for token in value.split(b","))
    if not nominated.isdisjoint(_FRAMING):
        raise _Rejected("a connection field that names what frames or routes the message")
    return [
        (name, value)
        for name, value in fields
        if name not in _HOP_BY_HOP
        and (name not in nominated or name == b"te")
        and (name != b"te" or b"trailers" in value.lower())
    ]


class _Rejected(ValueError):
    """What the peer sent is refused; the message says why."""

    # Of the class: compiled, an exception does not get what it would begin with as an object.
    abuse: ClassVar[str] = ""


class _TooLarge(_Rejected):
    """A header section over its limit."""

    abuse: ClassVar[str] = "header-list-too-large"


class _TooMany(_TooLarge):
    """A header section of too many fields."""

    abuse: ClassVar[str] = "too-many-headers"


class _Overhead(_Rejected):
    """A chunked body of little but framing."""

    abuse: ClassVar[str] = "chunk-overhead"


class _Pipelined(_Rejected):
    """Too many requests before an answer."""

    abuse: ClassVar[str] = "pipeline-flood"


class _Blank(_Rejected):
    """Empty lines without end."""

    abuse: ClassVar[str] = "empty-lines"


def _check_length(value: bytes) -> None:
    """Digits alone, and no zeros in front: whoever reads it next reads the same (RFC 9110 section 8.6)."""
    if not value.isdigit() or (value[0] == 0x30 and value != b"0"):
        raise _Rejected("a content-length that is not plainly a number")


class _Http1:
    """What both sides share: reading bodies, raw mode after an upgrade, writing bodies."""

    multiplexed = False
    name = "http/1.1"

    _parser: httptools.HttpRequestParser | httptools.HttpResponseParser

    def __init__(self, *, max_header_bytes: int, max_headers: int) -> None:
        self.finished = False
        self.aborted = False
        self._max_header_bytes = max_header_bytes
        self._max_headers = max_headers
        self._out: list[bytes] = []
        self._events: list[Event] = []
        self._small = bytearray()
        """Of a body, small pieces in a row that are to become an event."""
        self._reading = 1
        """The message being read."""
        self._in_head = True
        self._begun = False
        """A head is being read."""
        self._unparsed_bytes = 0
        """What was read of a head that llhttp has not come to the end of."""
        self._blank_bytes = 0
        """Read since the last message ended, without another's having begun."""
        self._framing_bytes = 0
        """Of a body, what was read and is no data, less 16 bytes for each byte of data."""
        self._fields: Fields = []
        """Of the section being read: the head, or the trailers; names as they came."""
        self._section_bytes = 0
        self._raw = False
        self._chunked = False
        self._failed = False
        self._fresh = True
        """llhttp has not begun a message, and was not told that there will be none."""
        self._left_bytes = 0
        """Of a plain message's body, what has not been read."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one field, of the head or of the trailers."""
        self._fields.append((name, value))
        self._section_bytes += len(name) + len(value)

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of body."""
        size = len(body)
        self._framing_bytes -= 17 * size
        if size < SMALL_BYTES:
            # A chunk of a byte costs its sender six: let it not cost those behind us as much as a whole piece does.
            small = self._small
            small += body
            if len(small) >= JOINED_BYTES:
                self._join()
            return
        self._join()
        self._events.append(DataReceived(self._reading, body, size))

    def _join(self) -> None:
        """Make one event of the small pieces."""
        small = self._small
        if small:
            self._events.append(DataReceived(self._reading, bytes(small), len(small)))
            small.clear()

    def output(self) -> bytes:
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    def send_data(self, stream: int, data: bytes) -> bool:
        if self._raw or not self._chunked:
            self._out.append(data)
        else:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        return True

    def consumed(self, stream: int, size: int) -> None:
        """HTTP/1.1 has no windows: the connection pauses reading instead."""

    def _write_trailers(self, trailers: Fields | None) -> None:
        if not self._chunked:
            return
        if trailers:
            self._out.append(b"0\r\n")
            for name, value in _end_to_end(trailers):
                self._out += (name, b": ", value, b"\r\n")
            self._out.append(b"\r\n")
        else:
            self._out.append(_LAST_CHUNK)

    def _section_ended(self) -> Fields:
        """The fields of the header or trailer section that was read, with lower-case names."""
        self._check_size()
        section, self._fields = self._fields, []
        self._section_bytes = 0
        if len(section) > self._max_headers:
            raise _TooMany(f"there are more than {self._max_headers} header fields")
        return [(name.lower(), value) for name, value in section]

    def _check_size(self) -> None:
        if self._section_bytes > self._max_header_bytes:
            raise _TooLarge("the header or trailer section is too large")

    def _message_ended(self) -> Event:
        self._join()
        if self._fields:
            trailers = self._sound_trailers(_end_to_end(self._section_ended()))
            if trailers:
                return TrailersReceived(self._reading, trailers)
        return Ended(self._reading)

    def _sound_trailers(self, fields: Fields) -> Fields:
        """Trailers without what may not stand there."""
        raise NotImplementedError

    def _begin_message(self) -> None:
        self._in_head = self._begun = True
        self._unparsed_bytes = self._section_bytes = self._blank_bytes = self._framing_bytes = 0
        self._fields = []

    def _count(self, data: bytes) -> None:
        """Count `data` as what it begins in: a head, what is between messages, or a body."""
        if self._begun:
            self._unparsed_bytes += len(data)
        elif self._in_head:
            self._blank_bytes += len(data)
            if self._blank_bytes > MAX_BLANK_BYTES and not data.strip(b"\r\n"):
                raise _Blank("nothing but empty lines")
        else:
            self._framing_bytes += len(data)

    def _plain_begun(self, length: int) -> None:
        """A plain head was read, of a message with a body of `length` bytes."""
        self._unparsed_bytes = self._blank_bytes = self._framing_bytes = 0
        self._in_head = self._begun = False
        self._left_bytes = length

    def _plain_body(self, data: bytes, at: int) -> int:
        """Take what `data` has at `at` of a plain message's body; gives where that ends."""
        body = data[at : at + self._left_bytes]
        size = len(body)
        if size:
            self._left_bytes -= size
            self._framing_bytes -= 17 * size
            self._events.append(DataReceived(self._reading, body, size))
            if not self._left_bytes:
                self._complete()
        return at + size

    def _complete(self) -> None:
        """The message being read is whole."""
        raise NotImplementedError

    def _feed(self, data: bytes) -> None:
        """Have llhttp parse `data`; a section that never ends is stopped here, before its last field is whole."""
        try:
            self._parser.feed_data(data)
        finally:
            self._join()
        self._check_size()
        if self._framing_bytes > CHUNK_OVERHEAD_BYTES:
            raise _Overhead("a chunked body of little but framing")
        if self._begun and self._unparsed_bytes > 2 * self._max_header_bytes:
            raise _TooLarge("the header section is too large")


def _cause(error: Exception) -> Exception:
    """What one of our callbacks raised, where llhttp only tells that one did."""
    inner = error.__context__
    return inner if isinstance(error, httptools.HttpParserCallbackError) and isinstance(inner, _Rejected) else error


def _abuse_of(error: Exception) -> str:
    cause = _cause(error)
    return cause.abuse if isinstance(cause, _Rejected) else ""


def _text(error: Exception) -> str:
    cause = _cause(error)
    return str(cause.args[0]) if cause.args else "not HTTP/1.1"


class Http1Server(_Http1):
    """The caller's side: reads requests, writes responses."""

    def __init__(self, *, scheme: bytes, max_header_bytes: int = 65536, max_headers: int = 100) -> None:
        super().__init__(max_header_bytes=max_header_bytes, max_headers=max_headers)
        self._scheme = scheme
        self._parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self._serving = 1
        """The message being answered; events of later ones are held back."""
        self._held: list[Event] = []
        self._url = b""
        self._upgrade_key: dict[int, bytes] = {}
        self._keep_alive = True
        self._leaving = False
        self._old = False
        self._closing = False
        self._tunnel = False
        """What is read belongs to a tunnel, whose request may still wait for its turn."""
        self._manners: dict[int, tuple[bool, bool, bool]] = {}
        """Of messages whose turn has not come: whether to keep the connection, HTTP/1.0, a tunnel."""
        self._request_over = False
        self._ended_at_head = False
        self._head_request = False
        self._replaying = False
        self._framing: Fields = []
        """Body framing of a request whose upgrade was not taken, until a fresh parser knows it."""
        self._read_plain = read_request

    @property
    def backlogged(self) -> bool:
        # While nothing is read, it goes unseen that the caller has gone: some is taken before that.
        return len(self._held) > _MAX_HELD and not self._failed

    @property
    def unfinished(self) -> int:
        return self._reading if self._begun else 0

    # -- reading ----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        if self._failed or self.finished:
            return []
        if self._tunnel:
            self._events.append(DataReceived(self._reading, data, len(data)))
            return self._take()
        try:
            self._count(data)
            data = self._receive_plain(data)
            if data:
                self._feed(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._tunnel:
                if rest:
                    self._events.append(DataReceived(self._reading, rest, len(rest)))
            else:
                events = self._take()
                return events + self._without_upgrade(rest)
        except (httptools.HttpParserError, _Rejected) as error:
            return self._fail(error)
        return self._take()

    def _receive_plain(self, data: bytes) -> bytes:
        """Take the plain requests that `data` begins with; gives what is left of it, for llhttp."""
        read = self._read_plain
        if read is None:
            return data
        at = self._plain_body(data, 0)
        while self._fresh and self._in_head and not self._begun and at < len(data):
            if self._reading - self._serving > MAX_PIPELINED:
                break  # llhttp's turn to see that there is one more
            found = read(data, at, self._max_header_bytes, self._max_headers)
            if found is None:
                break
            at, method, target, host, fields, length = found
            self._plain_begun(length)
            self._manners[self._reading] = True, False, False
            self._ended_at_head = ended = length == 0
            head = RequestHead(method, self._scheme, host, target, fields)
            self._events.append(RequestReceived(self._reading, head, ended))
            if ended:
                self._complete()
            else:
                at = self._plain_body(data, at)
        return data[at:]

    def receive_eof(self) -> list[Event]:
        if self._raw:
            return [Ended(self._reading)]
        self.finished = True
        return []

    def release(self, stream: int) -> list[Event]:
        if self._raw or self.finished:
            self.finished = True
            return []
        if not self._keep_alive or not self._request_over:
            self.finished = True
            return []
        self._serving += 1
        self._request_over = False
        held, self._held = self._held, []
        self._events = held
        return self._take()

    def _take(self) -> list[Event]:
        """The events of the message being answered; those of later ones are held back."""
        events, self._events = self._events, []
        if not events:
            return events
        if events[-1].stream != self._serving:  # type: ignore[union-attr]
            self._held += [event for event in events if event.stream != self._serving]  # type: ignore[union-attr]
            events = [event for event in events if event.stream == self._serving]  # type: ignore[union-attr]
            if not events:
                return events
        first, last = events[0], events[-1]
        if type(first) is RequestReceived:
            self._head_request = first.head.method == b"HEAD"
            keep_alive, self._old, self._raw = self._manners.pop(first.stream)
            self._keep_alive = keep_alive and not self._closing
        kind = type(last)
        if kind is Ended or kind is TrailersReceived or (type(last) is RequestReceived and last.ended):
            self._request_over = True
        return events

    def _fail(self, error: Exception) -> list[Event]:
        self._failed = True
        abuse = _abuse_of(error)
        if isinstance(_cause(error), _Pipelined):
            # Not when it is this message's turn: now, and without an answer to it.
            self._keep_alive = False
            self._events = []
            self._held = []
            return [ConnectionFailed(_text(error), abuse=abuse)]
        if self._reading == self._serving:
            self._keep_alive = False  # else those before it have their turn
        self._events.append(ConnectionFailed(_text(error), self._reading, isinstance(_cause(error), _TooLarge), abuse))
        return self._take()

    def _without_upgrade(self, rest: bytes) -> list[Event]:
        """Go on after an upgrade that we do not take (h2c, say): RFC 9110 section 7.8 lets a server ignore it.

        llhttp stops at such a head, so a fresh parser is led past one with the same framing.
        """
        self._parser = httptools.HttpRequestParser(self)
        self._fresh = True
        if self._framing:
            framing = b"".join(b"%s: %s\r\n" % item for item in self._framing)
            self._framing = []
            self._replaying = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n")
            self._replaying = False
            self._section_ended()
        return self.receive(rest) if rest else []

    def on_message_begin(self) -> None:
        """httptools: a request begins."""
        if self._replaying:
            return
        if self._reading - self._serving > MAX_PIPELINED:
            raise _Pipelined(f"more than {MAX_PIPELINED} requests before an answer")
        self._begin_message()

    def on_url(self, url: bytes) -> None:
        """httptools: the request target, perhaps in pieces."""
        if not self._replaying:
            self._url += url
            self._section_bytes += len(url)

    def on_headers_complete(self) -> None:
        """httptools: the head is whole."""
        if self._replaying:
            return
        parser = self._parser
        fields = self._section_ended()
        method: bytes = parser.get_method()
        url, self._url = self._url, b""
        version = parser.get_http_version()
        old = version == "1.0"
        if not old and version != "1.1":
            raise _Rejected(f"HTTP/{version} is not spoken here")
        host: bytes | None = None
        has_body = False
        framed = False
        expects = False
        upgrade = b""
        connection_fields = False
        kept: Fields = []
        for item in fields:
            name, value = item
            if name == b"host":
                if host is not None:
                    raise _Rejected("two Host fields")
                if AUTHORITY.fullmatch(value) is None:
                    raise _Rejected("a Host that is no host")
                host = value
                continue
            if name == b"content-length":
                _check_length(value)
                has_body = value != b"0"
                framed = True
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or old:
                    raise _Rejected(f"transfer-encoding {value[:40].decode('latin-1')!r} is not supported")
                has_body = framed = True
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise _Rejected("the only expectation is 100-continue")
                expects = True
            elif name == b"upgrade":
                upgrade = value.lower()
            if name in _HOP_BY_HOP or name == b"te":
                connection_fields = True
            kept.append(item)
        if not host and not old:
            raise _Rejected("no Host field")
        if expects and not has_body:
            raise _Rejected("an expectation without a body")
        upgrading = parser.should_upgrade()
        keep_alive = parser.should_keep_alive()
        if connection_fields:
            kept = _end_to_end(kept)
        if has_body and upgrading:
            self._framing = [
                (name, value) for name, value in fields if name in (b"content-length", b"transfer-encoding")
            ]
        scheme, authority, path = self._target(method, url, host or b"")
        protocol = b""
        if method == b"CONNECT":
            if framed:
                raise _Rejected("a CONNECT with a body: what follows it is the tunnel's")
            self._tunnel = True
        elif upgrading and upgrade == b"websocket" and method == b"GET":
            if framed:
                raise _Rejected("a websocket upgrade with a body")
            key = field_value(kept, b"sec-websocket-key")
            if key is None or sum(name == b"sec-websocket-key" for name, _ in kept) > 1:
                raise _Rejected("a websocket upgrade without one sec-websocket-key")
            self._upgrade_key = {self._reading: key}
            kept = [item for item in kept if item[0] != b"sec-websocket-key"]
            method, protocol = b"CONNECT", b"websocket"
            self._tunnel = True
        head = RequestHead(method, scheme, authority, path, kept, protocol)
        self._in_head = self._begun = False
        self._manners[self._reading] = keep_alive, old, self._tunnel
        ended = not has_body and not self._tunnel
        self._ended_at_head = ended
        self._events.append(RequestReceived(self._reading, head, ended))

    def _target(self, method: bytes, url: bytes, host: bytes) -> tuple[bytes, bytes, bytes]:
        """Scheme, authority and path of a request target (RFC 9112 section 3.2)."""
        if method == b"CONNECT":
            if not url or AUTHORITY.fullmatch(url) is None:
                raise _Rejected("a CONNECT to what is no host and port")
            return self._scheme, url, b""
        if b"#" in url:
            raise _Rejected("a fragment in the request target")
        if url[:1] == b"/" or url == b"*":
            return self._scheme, host, url
        scheme, separator, rest = url.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            raise _Rejected("the request target is neither a path nor an http URL")
        cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        authority, path = rest[:cut], rest[cut:]
        if not authority or AUTHORITY.fullmatch(authority) is None:
            raise _Rejected("the request target has no plain host")
        if host and host.lower() != authority.lower():
            raise _Rejected("the request target and Host name different hosts")
        return scheme.lower(), authority, path if path[:1] == b"/" else b"/" + path

    def on_message_complete(self) -> None:
        """httptools: the request is whole."""
        if self._framing or self._tunnel:
            return  # an upgrade: what follows is a tunnel, or a body that a fresh parser will read
        self._fresh = self._parser.should_keep_alive()  # trailers may have said otherwise than the head
        self._complete()

    def _complete(self) -> None:
        if not self._ended_at_head:
            self._events.append(self._message_ended())
        self._reading += 1
        self._in_head = True

    def _sound_trailers(self, fields: Fields) -> Fields:
        return for_agents(fields)

    # -- writing ----------------------------------------------------------------------------------------

    def send_response(self, stream: int, head: ResponseHead, *, ended: bool) -> None:
        status = head.status
        if status < 200:
            if not self._old:  # RFC 9110 section 15.2: never to an HTTP/1.0 client
                self._write_head(status, head.fields)
            return
        key = self._upgrade_key.pop(stream, None)
        if key is not None and 200 <= status < 300:
            accept = b"upgrade: websocket\r\nsec-websocket-accept: " + _accept_for(key)
            self._write_head(101, head.fields, b"", b"connection: upgrade\r\n" + accept + b"\r\n\r\n")
            return
        if self._raw:
            if 200 <= status < 300:  # RFC 9110 section 9.3.6: no framing fields in a 2xx to CONNECT
                self._write_head(status, head.fields)
                return
            self._raw = False
            self._keep_alive = False  # what follows the refused head was meant for the tunnel
        otherwise = b""  # where there is no content-length
        if not (self._head_request or status in (204, 304)):
            if ended:
                otherwise = _NO_BODY
            elif not self._old:
                otherwise = _CHUNKED
            elif field_value(head.fields, b"content-length") is None:
                self._keep_alive = False
        if not self._keep_alive or not self._request_over or self._leaving:
            self._keep_alive = False
            last = b"connection: close\r\n\r\n"
        elif self._old:
            last = b"connection: keep-alive\r\n\r\n"
        else:
            last = b"\r\n"
        length = self._write_head(status, head.fields, otherwise, last)
        self._chunked = otherwise == _CHUNKED and not length

    def _write_head(self, status: int, fields: Fields, otherwise: bytes = b"", last: bytes = b"\r\n") -> bool:
        """Write a head that ends with `last`, and says `otherwise` for want of a length; whether it has one."""
        line = _STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status
        written, length = write_response(line, otherwise, last, fields)
        self._out.append(written)
        return length

    def end(self, stream: int, trailers: Fields | None = None) -> None:
        if self._raw:
            self.finished = True
            return
        self._write_trailers(trailers)
        self._chunked = False

    def reset(self, stream: int, *, cancelled: bool = False) -> None:
        self.finished = True
        self.aborted = True

    def announce(self) -> None:
        self._leaving = True  # the next answer says so

    def close(self) -> None:
        self._closing = True
        self._keep_alive = False
        self._leaving = True
        if self._in_head and not self._begun and self._reading == self._serving:
            self.finished = True


class Http1Client(_Http1):
    """The agent's side: writes requests, reads responses, one at a time."""

    def __init__(
        self, *, entropy: Callable[[int], bytes], max_header_bytes: int = 65536, max_headers: int = 100
    ) -> None:
        super().__init__(max_header_bytes=max_header_bytes, max_headers=max_headers)
        self._entropy = entropy
        self._parser: httptools.HttpResponseParser = httptools.HttpResponseParser(self)
        self._busy = False
        self._reading = 0
        self._method = b""
        self._seen_bytes = 0
        """Of the answer's first line, up to where its version stands."""
        self._key = b""
        self._upgrading: list[bytes] | None = None
        """What was sent into a tunnel that the agent has not agreed to: to one that does not, it would be a request."""
        self._until_eof = False
        self._response_over = True
        self._request_over = True
        self._keep_alive = True
        self._interim = False
        self._read_plain = read_response

    @property
    def room(self) -> int:
        return 0 if self._busy or self.finished else 1

    # -- writing ----------------------------------------------------------------------------------------

    def ping(self) -> None:
        """HTTP/1.1 has none: the kernel asks the peer's kernel."""

    def send_request(self, head: RequestHead, *, ended: bool) -> int:
        self._busy = True
        self._reading += 1
        self._method = head.method
        self._response_over = False
        self._request_over = ended
        self._until_eof = False
        self._chunked = False
        self._seen_bytes = 0
        self._begin_message()
        self._upgrading = [] if head.protocol else None
        if head.protocol:
            self._write_upgrade(head)
            return self._reading
        otherwise = b""  # where there is no content-length
        if not ended:
            otherwise = _CHUNKED
        elif head.method not in _BODILESS_METHODS:
            otherwise = _NO_BODY
        written, length = write_request(head.method, head.path, head.authority, otherwise, head.fields)
        self._chunked = not ended and not length
        self._out.append(written)
        return self._reading

    def _write_upgrade(self, head: RequestHead) -> None:
        self._key = base64.b64encode(self._entropy(16))
        out = self._out
        out += (b"GET ", head.path, b" HTTP/1.1\r\nhost: ", head.authority)
        out += (b"\r\nconnection: upgrade\r\nupgrade: ", head.protocol)
        out += (b"\r\nsec-websocket-key: ", self._key, b"\r\n")
        for name, value in head.fields:
            if name != b"host":
                out += (name, b": ", value, b"\r\n")
        out.append(b"\r\n")

    def send_data(self, stream: int, data: bytes) -> bool:
        if self._upgrading is not None:
            self._upgrading.append(data)
            return False
        return super().send_data(stream, data)

    def end(self, stream: int, trailers: Fields | None = None) -> None:
        if self._raw:
            self.finished = True
            return
        self._write_trailers(trailers)
        self._request_over = True

    def reset(self, stream: int, *, cancelled: bool = False) -> None:
        self.finished = True

    def release(self, stream: int) -> list[Event]:
        self._busy = False
        if not (self._response_over and self._request_over and self._keep_alive) or self._raw:
            self.finished = True
        return []

    def close(self) -> None:
        self._keep_alive = False
        if not self._busy:
            self.finished = True

    # -- reading ----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        if self._failed or self.finished:
            return []
        if self._raw:
            return [DataReceived(self._reading, data, len(data))]
        if self._response_over:
            return self._fail("bytes that answer no request")
        seen = self._seen_bytes
        if seen < 5:
            if data[: 5 - seen] != b"HTTP/"[seen : seen + len(data)]:
                # llhttp takes RTSP, and empty lines
                return self._fail("an answer that does not begin with its version")
            self._seen_bytes += len(data)
        try:
            self._count(data)
            if self._left_bytes or seen == 0:
                data = self._receive_plain(data)
            if data:
                self._feed(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if not self._raw:
                return self._fail("an upgrade that was not asked for")
            if rest:
                self._events.append(DataReceived(self._reading, rest, len(rest)))
        except (httptools.HttpParserError, _Rejected) as error:
            return self._fail(_text(error))
        events, self._events = self._events, []
        return events

    def _receive_plain(self, data: bytes) -> bytes:
        """Take a plain answer's head and body, or what has come of it; gives what is left of `data`, for llhttp."""
        at = 0
        if not self._left_bytes:
            read = self._read_plain
            if read is None or not self._fresh or self._method == b"HEAD":
                return data
            found = read(data, self._max_header_bytes, self._max_headers)
            if found is None:
                return data
            at, status, fields, length = found
            self._plain_begun(length)
            ended = length == 0
            self._events.append(ResponseReceived(self._reading, ResponseHead(status, fields), ended))
            self._response_over = ended
        at = self._plain_body(data, at)
        return data[at:]

    def receive_eof(self) -> list[Event]:
        self._keep_alive = False
        if self._raw:
            return [Ended(self._reading)]
        self.finished = True
        if self._response_over:
            return []
        self._response_over = True
        if self._until_eof:
            return [Ended(self._reading)]
        return [StreamReset(self._reading)]

    def _fail(self, detail: str) -> list[Event]:
        self._failed = True
        self.finished = True
        events, self._events = self._events, []
        return [*events, ConnectionFailed(detail)]

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of body."""
        if self._response_over or self._interim:
            raise _Rejected("a body where there can be none")
        super().on_body(body)

    def on_message_begin(self) -> None:
        """httptools: a response begins, interim or final."""
        if self._response_over:
            raise _Rejected("bytes that answer no request")
        self._begin_message()

    def on_headers_complete(self) -> None:
        """httptools: the head is whole."""
        status = self._parser.get_status_code()
        fields = self._section_ended()
        self._in_head = self._begun = False
        length, chunked, plain = self._framed_by(fields)
        if not 100 <= status <= 599:
            raise _Rejected(f"a status of {status}")
        if (status < 200 or status == 204) and (chunked or (length or b"0") != b"0"):
            raise _Rejected(f"a {status} with a body")
        self._interim = status < 200
        if status == 101:
            expected = _accept_for(self._key) if self._key else b""
            if not expected or field_value(fields, b"sec-websocket-accept") != expected:
                raise _Rejected("a 101 that does not answer our upgrade")
            self._raw = True
            self._interim = False
            kept = [item for item in _end_to_end(fields) if item[0] != b"sec-websocket-accept"]
            self._events.append(ResponseReceived(self._reading, ResponseHead(200, kept), ended=False))
            self._enter_tunnel()
            return
        if status < 100:
            raise _Rejected(f"a status of {status}")
        if self._interim:
            kept = [item for item in _end_to_end(fields) if item[0] != b"content-length"]
            self._events.append(ResponseReceived(self._reading, ResponseHead(status, kept), False))
            return
        if not self._parser.should_keep_alive():
            self._keep_alive = False
        bodiless = self._method == b"HEAD" or status in (204, 304)
        self._until_eof = not (bodiless or chunked or length is not None)
        ended = bodiless or length == b"0"
        head = ResponseHead(status, fields if plain else _end_to_end(fields))
        self._events.append(ResponseReceived(self._reading, head, ended))
        if ended:
            self._response_over = True
            if self._method == b"HEAD":
                # llhttp cannot know that no body follows; a fresh parser reads the next response.
                self._parser = httptools.HttpResponseParser(self)
                self._fresh = True

    def _enter_tunnel(self) -> None:
        held, self._upgrading = self._upgrading, None
        if held:
            self._out += held
            self._events.append(Writable(self._reading))
        if self._request_over:
            self.finished = True

    def _framed_by(self, fields: Fields) -> tuple[bytes | None, bool, bool]:
        """A response's length, whether it is chunked, and whether none of its fields concerns the connection."""
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise _Rejected(f"an answer in version {version}")
        length: bytes | None = None
        chunked = False
        plain = True
        for name, value in fields:
            if name == b"content-length":
                _check_length(value)
                length = value
            elif name in _HOP_BY_HOP:
                plain = False
                if name == b"transfer-encoding":
                    if chunked or value.lower() != b"chunked" or version == "1.0":
                        raise _Rejected(f"a transfer-encoding of {value[:40].decode('latin-1')!r}")
                    chunked = True
        return length, chunked, plain

    def on_message_complete(self) -> None:
        """httptools: the response is whole."""
        if self._method != b"HEAD":  # else there is a fresh parser already
            self._fresh = self._parser.should_keep_alive()
        self._complete()

    def _complete(self) -> None:
        if self._interim:
            self._begin_message()
            return
        if self._raw or self._response_over:
            return
        self._response_over = True
        self._events.append(self._message_ended())

    def _sound_trailers(self, fields: Fields) -> Fields:
        return for_callers(fields)
