"""Trace context and baggage: what is valid goes on as it came, what is not does not go on at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Fields
from gateway.packet import sift
from gateway.packet.w3c import MAX_BAGGAGE_BYTES, MAX_BAGGAGE_MEMBERS, Parent, passed_on, read_traceparent

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
TRACEPARENT = b"00-%s-%s-01" % (TRACE, SPAN)

good_members = st.sampled_from(
    [b"a=b", b"user = alice", b"a=", b"k=v;p", b"k=v ; p = q ;r", b"!#$%&'*+-.^_`|~=(x)=y/%20"]
)
any_members = good_members | st.binary(max_size=8)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (TRACEPARENT, 1),
        (b"00-%s-%s-00" % (TRACE, SPAN), 0),
        (b"00-%s-%s-ff" % (TRACE, SPAN), 3),
        (b"cc-%s-%s-01" % (TRACE, SPAN), 1),
        (b"cc-%s-%s-01-what-the-future-will-be-like" % (TRACE, SPAN), 1),
    ],
)
def test_a_traceparent_is_read_those_of_later_versions_too(value: bytes, flags: int) -> None:
    assert read_traceparent(value) == Parent(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"ff-%s-%s-01" % (TRACE, SPAN),
        b"00-%s-%s-01-more" % (TRACE, SPAN),
        b"cc-%s-%s-01.more" % (TRACE, SPAN),
        b"00-%s-%s-01" % (b"0" * 32, SPAN),
        b"00-%s-%s-01" % (TRACE, b"0" * 16),
        b"00-%s-%s-01" % (TRACE.upper(), SPAN),
        b"00-%s-%s-1" % (TRACE, SPAN),
        TRACEPARENT + b", " + TRACEPARENT,
        TRACEPARENT + b"\n",
    ],
)
def test_a_traceparent_that_is_not_valid_is_none(value: bytes) -> None:
    assert read_traceparent(value) is None


@pytest.mark.parametrize(
    ("state", "goes_on"),
    [
        (b"a=b", True),
        (b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", True),
        (b"foo@vendor=1 2 , 0x*/-_=!", True),
        (b"a=b,,c=d,", True),
        (b"A=b", False),
        (b"a=b,=c", False),
        (b"a", False),
        (b"a=\xe4", False),
        (b",", False),
        (b",".join(b"k%d=v" % number for number in range(33)), False),
        (b"a=" + b"v" * 257, False),
    ],
)
def test_a_tracestate_goes_on_whole_or_not_at_all(state: bytes, goes_on: bool) -> None:
    fields = [(b"tracestate", state)]
    assert passed_on(fields, TRACEPARENT) == (fields if goes_on else [])


def test_a_tracestate_without_its_trace_goes() -> None:
    assert passed_on([(b"tracestate", b"a=b")], b"") == []
    assert passed_on([(b"tracestate", b"a=b")], b"00-nonsense") == []


@given(st.lists(good_members, min_size=1, max_size=20))
def test_baggage_as_it_should_be_goes_on_as_it_came(members: list[bytes]) -> None:
    lines = [(b"baggage", b" ,".join(members)), (b"baggage", b"last=one; property; p = v")]
    assert passed_on(lines, b"") == lines


@given(st.lists(any_members, max_size=90))
def test_of_any_baggage_only_what_is_readable_and_within_bounds_goes_on(members: list[bytes]) -> None:
    came: Fields = [(b"baggage", b",".join(members))]
    kept = passed_on(came, b"")
    assert len(kept) <= 1
    for name, value in kept:
        assert name == b"baggage"
        assert len(value) <= MAX_BAGGAGE_BYTES
        assert 1 <= len([each for each in value.split(b",") if each.strip()]) <= MAX_BAGGAGE_MEMBERS
        assert passed_on([(name, value)], b"") == [(name, value)]


def test_too_much_baggage_is_cut_at_a_member() -> None:
    members = [b"key%d=%s" % (number, b"v" * 200) for number in range(60)]
    ((_, value),) = passed_on([(b"baggage", b",".join(members))], b"")
    assert len(value) <= MAX_BAGGAGE_BYTES
    assert value.split(b",") == members[: value.count(b",") + 1]
    assert len(value) + 208 > MAX_BAGGAGE_BYTES


def test_malformed_members_are_taken_out_of_a_packet_on_its_way() -> None:
    sifted = sift(
        [
            (b"baggage", b'user=alice,bad="quoted",plan=gold;p'),
            (b"traceparent", b"00-bad"),
            (b"tracestate", b"a=b"),
            (b"x-other", b"1"),
        ]
    )
    assert sifted.onward == [(b"x-other", b"1"), (b"baggage", b"user=alice,plan=gold;p")]
