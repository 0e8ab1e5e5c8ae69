"""W3C Trace Context and Baggage: reading a caller's, and what of it goes on to the agent.  Pure.

https://www.w3.org/TR/trace-context/ and https://www.w3.org/TR/baggage/.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from gateway.messages import Field, Fields
from gateway.packet import fields as names

SAMPLED: Final = 0x01
RANDOM: Final = 0x02
"""The trace id is random; says so to whoever samples by it (Trace Context level 2)."""
MAX_STATE_MEMBERS: Final = 32
"""Section 3.3.1.1 of Trace Context."""
MAX_BAGGAGE_MEMBERS: Final = 64
MAX_BAGGAGE_BYTES: Final = 8192
"""What a platform has to pass on of baggage (section 3.3.2); here it is also the most."""

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE_MEMBER = re.compile(
    rb"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
_PAIR = rb"%s[ \t]*=[ \t]*%s" % (_TOKEN, _VALUE)
_BAGGAGE_MEMBER = re.compile(rb"%s(?:[ \t]*;[ \t]*(?:%s|%s))*" % (_PAIR, _PAIR, _TOKEN))


class Parent(NamedTuple):
    """What a ``traceparent`` says."""

    trace_id: bytes
    """32 hexadecimal digits."""
    span_id: bytes
    """16 of them."""
    flags: int
    """Those that are known here."""


def read_traceparent(value: bytes) -> Parent | None:
    """The caller's span; ``None`` for what is not valid, after which a trace begins anew (section 3.2.2)."""
    matched = _TRACEPARENT.fullmatch(value)
    if matched is None:
        return None
    version, trace_id, span_id, flags, more = matched.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if trace_id == b"0" * 32 or span_id == b"0" * 16:
        return None
    return Parent(trace_id, span_id, int(flags, 16) & (SAMPLED | RANDOM))


def passed_on(fields: Fields, traceparent: bytes) -> Fields:
    """What of a caller's ``tracestate`` and ``baggage`` goes on.

    What is as it should be goes on as it came.  A tracestate without a valid traceparent, or with a member that cannot
    be read, goes; of baggage, the members that cannot be read, and those beyond the bounds.

    Args:
        fields: the request's fields of these names.
        traceparent: the caller's; empty when it sent none.

    """
    states = [item for item in fields if item[0] == names.TRACESTATE]
    baggage = [item for item in fields if item[0] == names.BAGGAGE]
    onward: Fields = []
    if states and read_traceparent(traceparent) is not None and _readable(states):
        onward += states
    if baggage:
        onward += _bounded(baggage)
    return onward


def _members(fields: Fields) -> list[bytes]:
    """Of a list in one or several lines; empty members are none (RFC 9110 section 5.6.1)."""
    parts = (part.strip(b" \t") for _, value in fields for part in value.split(b","))
    return [part for part in parts if part]


def _readable(states: Fields) -> bool:
    members = _members(states)
    return 0 < len(members) <= MAX_STATE_MEMBERS and all(map(_STATE_MEMBER.fullmatch, members))


def _bounded(baggage: Fields) -> Fields:
    kept: list[bytes] = []
    room = MAX_BAGGAGE_BYTES
    members = _members(baggage)
    for member in members:
        if len(kept) < MAX_BAGGAGE_MEMBERS and len(member) <= room and _BAGGAGE_MEMBER.fullmatch(member):
            kept.append(member)
            room -= len(member) + 1
    if 0 < len(kept) == len(members):
        return baggage
    one: Field = (names.BAGGAGE, b",".join(kept))
    return [one] if kept else []
