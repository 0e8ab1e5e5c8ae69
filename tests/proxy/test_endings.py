"""A stream that cannot go on says so in its own format."""

from __future__ import annotations

import json

import pytest

from gateway.messages import ResponseHead
from gateway.proxy.endings import at_line_start, is_event_stream, last_words
from gateway.refusal import Reason, Refusal

CUT = Refusal(Reason.DEADLINE_EXCEEDED, "nothing has moved\nfor 300 s")
EVENTS = ResponseHead(200, [(b"content-type", b"text/event-stream; charset=utf-8")])


def events(body: bytes) -> list[dict[str, str]]:
    """What a reader of server-sent events makes of `body` (WHATWG HTML, 9.2.6)."""
    found: list[dict[str, str]] = []
    event: dict[str, str] = {}
    for line in body.decode().split("\n"):
        name, _, value = line.partition(": ")
        if not line:
            if "data" in event:
                found.append(event)
            event = {}
        elif name == "data" and "data" in event:
            event["data"] += "\n" + value
        elif name:
            event[name] = value
    return found


@pytest.mark.parametrize("sent", [b"", b"data: 1\n\n", b"event: token\ndata: 1\n\n"])
def test_an_event_stream_ends_with_an_error_event(sent: bytes) -> None:
    last = last_words(EVENTS, sent, CUT, "packet-1")
    assert last is not None
    body, trailers = last
    *_, error = events(sent + body)
    assert trailers is None
    assert error["event"] == "error"
    problem = json.loads(error["data"])
    assert (problem["type"], problem["flight_id"]) == ("urn:phoenixflight:deadline-exceeded", "packet-1")
    assert problem["detail"] == CUT.detail


@pytest.mark.parametrize("half", [b"event: token\ndata: {", b"data: 1\n", b"da"])
def test_half_an_event_is_no_event_of_the_agents(half: bytes) -> None:
    whole = b"event: token\ndata: 1\n\n"
    last = last_words(EVENTS, whole + half, CUT, "packet-1")
    assert last is not None
    found = events(whole + half + last[0])
    assert [event.get("event") for event in found] == ["token", "error"]


def test_a_grpc_call_ends_with_a_status() -> None:
    head = ResponseHead(200, [(b"content-type", b"application/grpc+proto")])
    message = b"urn:phoenixflight:deadline-exceeded: nothing has moved%0Afor 300 s"
    trailers = [(b"grpc-status", b"4"), (b"grpc-message", message)]
    assert last_words(head, b"\0", CUT, "packet-1") == (b"", trailers)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-type", b"application/json")],
        [],
        [*EVENTS.fields, (b"content-length", b"1000")],
        [*EVENTS.fields, (b"content-encoding", b"gzip")],
    ],
    ids=["json", "untyped", "length", "coding"],
)
def test_what_has_no_words_for_it_is_reset(fields: list[tuple[bytes, bytes]]) -> None:
    assert last_words(ResponseHead(200, fields), b"", CUT, "packet-1") is None
    assert not is_event_stream(ResponseHead(200, fields))


def test_a_comment_goes_between_lines_only() -> None:
    assert is_event_stream(EVENTS)
    assert [at_line_start(tail) for tail in (b"", b"x\n", b"x\r", b"x")] == [True, True, True, False]
