"""How long connections live, and which heads are known to be unfinished, without sockets."""

from __future__ import annotations

import h2.config
import h2.connection
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.codec import Http1Server, Http2Server
from gateway.proxy.codec.seam import ServerCodec
from gateway.proxy.lifetimes import JITTER, Heading, Lifetimes, Unread

HEAD = b"GET /run HTTP/1.1\r\nhost: gateway\r\nx: y\r\n\r\n"


def http2() -> tuple[ServerCodec, bytes]:
    """A server's codec that has been greeted, and the bytes of a request in one frame."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    greeting = peer.data_to_send()
    peer.send_headers(1, [(":method", "GET"), (":scheme", "https"), (":authority", "g"), (":path", "/")], True)
    codec = Http2Server()
    codec.receive(greeting)
    return codec, peer.data_to_send()


def http1() -> tuple[ServerCodec, bytes]:
    return Http1Server(scheme=b"https"), HEAD


@given(st.integers(0, 65535), st.floats(1, 1e6))
def test_ages_differ_by_a_tenth_at_most(random: int, max_age_s: float) -> None:
    age_s = Lifetimes(lambda bits: random).age_s(max_age_s)
    assert max_age_s * (1 - JITTER) <= age_s <= max_age_s * (1 + JITTER)


def test_a_head_is_slow_only_when_it_is_the_same_one_all_the_time() -> None:
    heading = Heading()
    assert [heading.unfinished_s(stream, now) for stream, now in ((1, 0), (1, 5), (3, 6), (3, 8), (0, 9), (3, 10))] == [
        *(0, 5, 0, 2, 0, 0)
    ]


def test_who_takes_anything_at_all_is_waited_for_and_a_new_answer_has_its_time() -> None:
    unread = Unread()
    looks = ((0, 0), (90, 5), (90, 8), (95, 9), (80, 10), (80, 12), (0, 13), (0, 20), (7, 21), (7, 23))
    assert [unread.untaken_s(waiting, now) for waiting, now in looks] == [0, 0, 3, 4, 0, 2, 0, 0, 0, 2]


@pytest.mark.parametrize("make", [http1, http2])
def test_a_head_is_unfinished_from_its_beginning_to_its_last_byte(make) -> None:
    codec, request = make()
    assert codec.unfinished == 0
    first = 1 if make is http1 else 9  # of HTTP/2 the frame's own head says what it is
    for at in range(len(request)):
        codec.receive(request[at : at + 1])
        assert (codec.unfinished == 1) == (first <= at + 1 < len(request))
    assert codec.unfinished == 0
