"""The extension for plain HTTP/1.1 messages: every rule that it holds a message to, and nothing that breaks it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.messages import Fields
from gateway.proxy.codec.plain import _write_request, _write_response
from tests.proxy.codec.memory import resident_bytes
from tests.proxy.codec.plainly import native, takes_native

pytestmark = takes_native

_TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_REQUEST = re.compile(rb"(GET|POST|PUT|PATCH|DELETE|OPTIONS) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1\r\n")
_RESPONSE = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [\x20-\x7e\t]*\r\n")
_LINE = re.compile(rb"([%s]+): ?([!-~](?:[ -~\t]*[!-~])?)\r\n" % re.escape(_TOKEN.encode()))
_HOST = re.compile(rb"[A-Za-z0-9.\-_~]+(?::[0-9]+)?")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,14}")
_ODD = [
    b"expect",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
]
_MAX_BYTES, _MAX_FIELDS = 400, 9


def read_request(data: bytes, start: int = 0, max_bytes: int = 65536, max_fields: int = 100) -> Any:
    assert native is not None
    return native.read_request(data, start, max_bytes, max_fields)


def read_response(data: bytes, max_bytes: int = 65536, max_fields: int = 100) -> Any:
    assert native is not None
    return native.read_response(data, max_bytes, max_fields)


def request(*lines: bytes, start: bytes = b"POST /run HTTP/1.1", host: bytes = b"Host: agent.example") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", length: bytes = b"content-length: 3") -> bytes:
    return b"\r\n".join([start, *lines, *([length] if length else []), b"", b""])


# -- what is read -------------------------------------------------------------------------------------------


def test_a_plain_request_is_read_whole() -> None:
    head = request(b"Content-Type: application/json", b"X-Mine:\ta b", b"CONTENT-LENGTH:2", b"connection: Keep-Alive")
    assert read_request(head) is None, "a tab in front of a value"
    head = head.replace(b"X-Mine:\ta b", b"X-Mine:a\t b")
    fields = [(b"content-type", b"application/json"), (b"x-mine", b"a\t b"), (b"content-length", b"2")]
    assert read_request(head) == (len(head), b"POST", b"/run", b"agent.example", fields, 2)
    assert read_request(b"12345" + head + b"{}", 5) == (5 + len(head), b"POST", b"/run", b"agent.example", fields, 2)


def test_a_plain_response_is_read_whole() -> None:
    head = response(
        b"Server: a", b"connection: keep-alive", b"Keep-Alive: timeout=5", b"host: x", start=b"HTTP/1.1 299 "
    )
    fields = [(b"server", b"a"), (b"host", b"x"), (b"content-length", b"3")]
    assert read_response(head) == (len(head), 299, fields, 3)
    assert read_response(head + b"abc") == (len(head), 299, fields, 3)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
def test_methods_and_known_names_are_the_same_objects_each_time(method: bytes) -> None:
    head = request(b"Accept: a", b"flight-id: b", start=method + b" / HTTP/1.1")
    one, two = read_request(head), read_request(head)
    assert one[1] == method
    assert one[1] is two[1]
    assert [name is same for (name, _), (same, _) in zip(one[4], two[4], strict=True)] == [True, True]


@pytest.mark.parametrize("method", [b"HEAD", b"CONNECT", b"TRACE", b"get", b"GETS", b"PUTT", b"P", b"", b" GET"])
def test_other_methods_are_not_plain(method: bytes) -> None:
    assert read_request(request(start=method + b" / HTTP/1.1")) is None


@pytest.mark.parametrize(
    "start",
    [
        b"GET * HTTP/1.1",
        b"GET http://a/ HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET / http/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /",
        b"\r\nGET / HTTP/1.1",
    ],
)
def test_other_request_lines_are_not_plain(start: bytes) -> None:
    assert read_request(request(start=start)) is None


def test_which_bytes_a_plain_target_may_hold() -> None:
    passed = {byte for byte in range(256) if read_request(request(start=b"GET /a%cb HTTP/1.1" % byte))}
    assert passed == set(range(0x21, 0x7F)) - {ord("#")}


def test_which_bytes_a_plain_name_may_hold() -> None:
    passed = {byte for byte in range(256) if read_request(request(b"x%cy: 1" % byte))}
    # A colon ends the name, and what is behind it then is its value.
    assert passed == {ord(char) for char in _TOKEN} | {ord(":")}
    assert read_request(request(b": 1")) is None
    for byte in _TOKEN.encode():
        (field,) = read_request(request(b"%c: 1" % byte))[4]
        assert field == (b"%c" % byte, b"1") if byte < 65 or byte > 90 else (b"%c" % (byte + 32), b"1")


def test_which_bytes_a_plain_value_may_hold() -> None:
    inside = {byte for byte in range(256) if read_request(request(b"x: a%cb" % byte))}
    assert inside == {9, *range(0x20, 0x7F)}
    for first in (b"x: %cb", b"x:%cb"):
        passed = {byte for byte in range(256) if read_request(request(first % byte))}
        assert passed == set(range(0x21, 0x7F)) | ({0x20} if first == b"x:%cb" else set())
    assert {byte for byte in range(256) if read_request(request(b"x: a%c" % byte))} == set(range(0x21, 0x7F))


@pytest.mark.parametrize(
    "line", [b"x:", b"x: ", b"x", b"x : 1", b" x: 1", b"x: 1\r\n 2", b"x: 1\r\n\t2", b"x:  1", b"x: 1 ", b"x: 1\t"]
)
def test_empty_values_folds_and_stray_space_are_not_plain(line: bytes) -> None:
    assert read_request(request(line)) is None
    assert read_response(response(line)) is None


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\x00", b"\r\n ", b"\x0b\r\n"])
@pytest.mark.parametrize("place", range(4))
def test_every_line_ends_with_cr_and_lf(end: bytes, place: int) -> None:
    for head, read in ((request(b"x: 1"), read_request), (response(b"x: 1"), read_response)):
        assert read(head)
        lines = head.split(b"\r\n")
        broken = b"\r\n".join(lines[: place + 1]) + end + b"\r\n".join(lines[place + 1 :])
        assert read(broken) is None or (place == 3 and broken.startswith(head))


@pytest.mark.parametrize("host", [b"a", b"a.b-c_d~e:1", b"127.0.0.1:65535", b"a:00"])
def test_plain_hosts(host: bytes) -> None:
    assert read_request(request(host=b"host: " + host))[3] == host


@pytest.mark.parametrize(
    "host",
    [b"", b":1", b"a:", b"a:b", b"a:1:2", b"[::1]", b"a%20", b"a,b", b"a b", b"a@b", b"a/b", b"a:1 ", b"\xc3\xa9"],
)
def test_other_hosts_are_not_plain(host: bytes) -> None:
    assert read_request(request(host=b"host: " + host)) is None


def test_a_request_has_one_host() -> None:
    assert read_request(request(host=b"")) is None
    assert read_request(request(b"HOST: agent.example")) is None


@pytest.mark.parametrize("length", [b"0", b"1", b"999999999999999"])
def test_plain_lengths(length: bytes) -> None:
    assert read_request(request(b"content-length: " + length))[-1] == int(length)
    assert read_response(response(length=b"content-length: " + length))[-1] == int(length)


@pytest.mark.parametrize(
    "length", [b"", b"00", b"01", b"+1", b"-1", b"1,1", b"1 1", b"0x1", b"1.0", b"1000000000000000"]
)
def test_other_lengths_are_not_plain(length: bytes) -> None:
    assert read_request(request(b"content-length: " + length)) is None
    assert read_response(response(length=b"content-length: " + length)) is None


def test_a_length_is_said_once_and_by_every_response() -> None:
    assert read_request(request())[-1] == 0
    assert read_request(request(b"content-length: 1", b"content-length: 1")) is None
    assert read_response(response(length=b"")) is None
    assert read_response(response(b"content-length: 3")) is None


@pytest.mark.parametrize(
    "value", [b"close", b"keep-alive, x", b"keep-alives", b"keep-aliv", b"x", b"keep-alive,", b"te"]
)
def test_a_connection_field_that_says_anything_else_is_not_plain(value: bytes) -> None:
    assert read_request(request(b"connection: " + value)) is None
    assert read_response(response(b"connection: " + value)) is None


@pytest.mark.parametrize("name", _ODD)
def test_hop_by_hop_fields_are_not_plain(name: bytes) -> None:
    for written in (name, name.upper(), name.title()):
        for value in (b"x", b"chunked", b"100-continue", b"trailers"):
            assert read_request(request(written + b": " + value)) is None
            assert read_response(response(written + b": " + value)) is None
    assert read_request(request(b"x" + name + b": 1")), "only the very name"
    assert read_request(request(name + b"x: 1"))
    assert read_request(request(name[:-1] + b": 1"))


@pytest.mark.parametrize("start", [b"200", b"299", b"404", b"503", b"599", b"301", b"205"])
def test_plain_statuses(start: bytes) -> None:
    assert read_response(response(start=b"HTTP/1.1 " + start + b" Why not\tat all?"))[1] == int(start)


@pytest.mark.parametrize(
    "start",
    [b"HTTP/1.1 " + each for each in b"100_ 101_ 199_ 204_ 304_ 600_ 999_ 099_ 20_ 2000_ 2x0_ 200 +20_".split()]
    + [b"HTTP/1.0 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.1 200 O\xc3\xa9", b"HTTP/1.1 200 O\x00"]
    + [b"http/1.1 200 OK", b"\r\nHTTP/1.1 200 OK", b"ICY 200 OK", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK"],
)
def test_other_status_lines_are_not_plain(start: bytes) -> None:
    assert read_response(response(start=start.replace(b"_", b" X"))) is None


def test_no_part_of_a_head_is_a_head() -> None:
    for head, read in ((request(b"content-length: 5"), read_request), (response(b"x: 1"), read_response)):
        assert read(head)
        assert not any(read(head[:size]) for size in range(len(head)))


def test_limits_hold_for_what_llhttp_would_count() -> None:
    head = request(b"x: 123", b"connection: keep-alive", b"keep-alive: 5")
    size = len(b"/runHostagent.examplex123connectionkeep-alivekeep-alive5")
    assert read_request(head, 0, size, 4)
    assert read_request(head, 0, size - 1, 4) is None
    assert read_request(head, 0, size, 3) is None
    head = response(b"x: 123")
    size = len(b"x123content-length3")
    assert read_response(head, size, 2)
    assert read_response(head, size - 1, 2) is None
    assert read_response(head, size, 1) is None
    assert read_response(head, 0, 0) is None


def test_more_fields_than_there_is_room_for_are_left_to_llhttp() -> None:
    for count, plain in ((127, True), (128, True), (129, False), (5000, False)):
        head = request(*[b"x: 1"] * count)
        assert bool(read_request(head, 0, 1 << 20, 10000)) == plain


@pytest.mark.parametrize("start", [-1, 4, 1 << 80])
def test_a_start_outside_of_the_data_is_an_error(start: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        read_request(b"abc", start)
    assert read_request(b"abc", 3) is None


def test_arguments_of_other_kinds_are_errors() -> None:
    assert native is not None
    wrong: list[tuple[Any, tuple[Any, ...]]] = [
        (native.read_request, ()),
        (native.read_request, ("GET", 0, 1, 1)),
        (native.read_request, (bytearray(b"GET"), 0, 1, 1)),
        (native.read_request, (b"GET", "0", 1, 1)),
        (native.read_request, (b"GET", 0, None, 1)),
        (native.read_request, (b"GET", 0, 1, 1.5)),
        (native.read_response, (b"HTTP", 1)),
        (native.read_response, (None, 1, 1)),
        (native.write_request, (b"", b"", b"", b"")),
        (native.write_request, (b"", "", b"", b"", [])),
        (native.write_request, (b"", b"", b"", b"", ())),
        (native.write_request, (b"", b"", b"", b"", [b"ab"])),
        (native.write_request, (b"", b"", b"", b"", [(b"a",)])),
        (native.write_request, (b"", b"", b"", b"", [(b"a", b"b", b"c")])),
        (native.write_response, (b"", b"", b"", [(b"a", "b")])),
        (native.write_response, (b"", b"", b"", [(b"a", b"b"), [b"a", b"b"]])),
        (native.write_response, (b"", b"", b"", [(None, b"b")])),
        (native.write_response, (b"", b"", None, [])),
    ]
    for function, arguments in wrong:
        with pytest.raises(TypeError):
            function(*arguments)
    with pytest.raises(ValueError, match="limit below 0"):
        native.read_response(b"", -1, 0)


# -- against a second reading -------------------------------------------------------------------------------


def _lines(data: bytes, at: int, left: int, count: int) -> tuple[int, list[tuple[bytes, bytes]]] | None:
    """The field lines in `data` from `at` on, and where they end."""
    lines: Fields = []
    while found := _LINE.match(data, at):
        at = found.end()
        lines.append((found[1].lower(), found[2]))
    if data[at : at + 2] != b"\r\n" or sum(map(len, sum(lines, ()))) > left or len(lines) > count:
        return None
    return at + 2, lines


def _kept(lines: Fields) -> tuple[Fields, int | None] | None:
    """The fields that go on, and the length; or nothing, where there is more to them."""
    names = [name for name, _ in lines]
    if any(name in _ODD for name in names) or names.count(b"content-length") > 1:
        return None
    if any(name == b"connection" and value.lower() != b"keep-alive" for name, value in lines):
        return None
    lengths = [value for name, value in lines if name == b"content-length"]
    if not all(_LENGTH.fullmatch(value) for value in lengths):
        return None
    kept = [item for item in lines if item[0] not in (b"connection", b"keep-alive")]
    return kept, int(lengths[0]) if lengths else None


def naive_request(data: bytes) -> object:
    start = _REQUEST.match(data)
    found = start and _lines(data, start.end(), _MAX_BYTES - len(start[2]), _MAX_FIELDS)
    kept = found and _kept(found[1])
    if not start or not found or not kept:
        return None
    fields, length = kept
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return None
    return found[0], start[1], start[2], hosts[0], [item for item in fields if item[0] != b"host"], length or 0


def naive_response(data: bytes) -> object:
    start = _RESPONSE.match(data)
    found = start and _lines(data, start.end(), _MAX_BYTES, _MAX_FIELDS)
    kept = found and _kept(found[1])
    if not start or int(start[1]) in (204, 304) or not found or not kept or kept[1] is None:
        return None
    return found[0], int(start[1]), kept[0], kept[1]


_NAMES = [b"Host", b"content-length", b"Connection", b"keep-alive", b"TE", b"X", b"accept", b"flight-id", b"a_b", b""]
_VALUES = [
    b"a",
    b"a:1",
    b"5",
    b"0",
    b"05",
    b"keep-alive",
    b"close",
    b"a b",
    b"a\tb",
    b"",
    b" a",
    b"a ",
    b"\xff",
    b"a" * 99,
]
_ENDS = [b"\r\n"] * 12 + [b"\n", b"\r", b" \r\n", b"\r\n ", b"\x00\r\n"]
_STARTS = [
    b"GET / HTTP/1.1",
    b"POST /a?b=c HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 404 ",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.0 200 OK",
]


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads that are plain more often than not, before a few bytes of them are changed."""
    start = draw(st.sampled_from(_STARTS))
    lines = draw(st.lists(st.tuples(st.sampled_from(_NAMES[-7:]), st.sampled_from(_VALUES)), max_size=8))
    lines.insert(draw(st.integers(0, len(lines))), (b"Content-Length" if start[:1] == b"H" else b"host", b"5"))
    lines += draw(st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_VALUES)), max_size=1))
    written = [start, *(name + draw(st.sampled_from([b": ", b":"])) + value for name, value in lines), b""]
    data = bytearray(b"".join(line + draw(st.sampled_from(_ENDS)) for line in written))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 1))] = draw(
            st.sampled_from([b"\r", b"\n", b" ", b"\t", b"\x00", b":", b"a"])
        )
    return bytes(data)


@settings(max_examples=500, deadline=None)
@given(st.one_of(heads(), st.binary(max_size=60)))
@example(b"")
@example(b"GET")
@example(b"GET / HTTP/1.1\r\nhost: a\r")
@example(b"HTTP/1.1 200")
def test_what_is_plain_is_what_the_rules_say(data: bytes) -> None:
    assert read_request(data, 0, _MAX_BYTES, _MAX_FIELDS) == naive_request(data)
    assert read_response(data, _MAX_BYTES, _MAX_FIELDS) == naive_response(data)


# -- what is written ----------------------------------------------------------------------------------------

_FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"host", b"content-length", b"x", b"Host", b"content-lengt", b""]),
        st.one_of(st.sampled_from([b"", b"0", b"a" * 1000]), st.binary(max_size=9)),
    ),
    max_size=6,
)


@given(st.tuples(*[st.binary(max_size=9)] * 4), _FIELDS)
def test_heads_are_written_as_they_are_in_python(texts: tuple[bytes, bytes, bytes, bytes], fields: Fields) -> None:
    assert native is not None
    assert native.write_request(*texts, fields) == _write_request(*texts, fields)
    assert native.write_response(*texts[:3], fields) == _write_response(*texts[:3], fields)


def test_a_length_is_written_for_want_of_one() -> None:
    assert native is not None
    start = b"GET", b"/", b"a", b"content-length: 0\r\n"
    assert native.write_request(*start, [(b"host", b"x"), (b"x", b"1")]) == (
        b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\ncontent-length: 0\r\n\r\n",
        False,
    )
    assert native.write_request(*start, [(b"content-length", b"3")]) == (
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n",
        True,
    )
    assert native.write_response(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", b"\r\n", [(b"host", b"a")]) == (
        b"HTTP/1.1 200 OK\r\nhost: a\r\nx: y\r\n\r\n",
        False,
    )


def test_a_hundred_thousand_heads_leave_nothing_behind() -> None:
    assert native is not None
    plain = request(b"X-Unknown: 1", b"accept: " + b"a" * 500, b"content-length: 3")
    odd = plain + b"GET"
    found = response(b"X-Unknown: 1", b"server: b")
    fields: list[Any] = [(b"x", b"y" * 500), (b"z", 1)]

    def rounds(number: int) -> None:
        for _ in range(number):
            read_request(plain)
            read_request(odd, len(plain))
            read_response(found)
            native.write_request(b"GET", b"/", b"a", b"", fields[:1])
            with pytest.raises(TypeError):
                native.write_response(b"", b"", b"", fields)

    rounds(1000)
    before = resident_bytes()
    rounds(100_000)
    assert resident_bytes() - before < 2 * 1024 * 1024
