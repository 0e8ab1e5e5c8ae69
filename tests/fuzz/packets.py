"""Packets: header fields and envelopes."""

from __future__ import annotations

import contextlib
import random

from gateway.decision import Forward, Refuse, decide
from gateway.identity import Principal
from gateway.messages import Fields, RequestHead
from gateway.packet import MalformedPacketError
from gateway.packet import fields as names
from gateway.packet.envelope import decode, encode
from gateway.packet.modes import disagreement, from_binary, to_structured
from tests.policy.worlds import ALLOW, NOON, PLANNER, policy, snapshot

_FORCE = snapshot(
    policy("free", ["*"], ALLOW),
    policy("hops", ["code.*"], {**ALLOW, "when": "packet.hops < 4", "to": {"minTrust": 0.5}}),
)
_NOT_FROM_CALLERS = names.GATEWAY_ONLY | names.FORWARDING


def head_of(data: bytes) -> RequestHead:
    """A request with lines of ``name: value`` for its fields, the first line its host; as a codec would let it in."""
    authority, *lines = data.split(b"\n")
    fields: Fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        if name and b"\r" not in line and b"\0" not in line:
            fields.append((name.strip().lower(), value.strip()))
    return RequestHead(b"POST", b"https", authority.strip(), b"/run", fields)


def check_packet(data: bytes) -> None:
    """A request is decided, whatever it claims; what only the gateway may say never goes on."""
    head = head_of(data)
    verdict = decide(head, Principal(PLANNER), _FORCE, NOON, random.Random(1).getrandbits)
    if isinstance(verdict, Refuse):
        assert verdict.refusal.detail
        return
    assert isinstance(verdict, Forward)
    onward = [(name.replace(b"_", b"-"), value) for name, value in verdict.fields]
    claimed = [item for item in onward if item[0] in _NOT_FROM_CALLERS]
    assert claimed == [(names.FROM, b'"%s"' % PLANNER.encode())], claimed
    assert not any(name.startswith(names.FORWARDING_PREFIX) for name, _ in onward)
    assert sum(name == names.ID for name, _ in onward) >= 1
    with contextlib.suppress(MalformedPacketError):  # an envelope is stricter than the header fields
        from_binary(head, b"", lambda: "id-1")


def check_envelope(data: bytes) -> None:
    """An envelope that is read can be written, and its header fields agree with it."""
    try:
        envelope = decode(data)
    except MalformedPacketError as error:
        assert str(error)
        return
    assert decode(encode(envelope)) == envelope
    fields, body = to_structured(envelope)
    for name, value in fields:
        assert not set(value) & set(b"\r\n\0"), (name, value)
    head = RequestHead(b"POST", b"https", b"gateway", b"/run", fields)
    caller = envelope.from_ or PLANNER
    assert disagreement(head, decode(body), caller=caller, lineage=envelope.lineage) is None
