"""The decision: one plain function from a request's head to a `Verdict`.  Pure.

Enters: `RequestHead`, `Principal`, `Snapshot`, the time, randomness.  Leaves: `Forward` or `Refuse`.
The data plane, ``phoenixflight explain``, ``policy test``, ``policy replay`` and the benchmarks all call `decide`;
nothing else decides.  It reads the packet, finds what is proven about it, has it judged, and picks an agent.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.authority import Credential
from gateway.identity import Principal
from gateway.judgement import NO_AGENT_RETRY_AFTER_S, judge
from gateway.messages import RequestHead
from gateway.packet import MalformedPacketError, parse, sift
from gateway.packet import fields as names
from gateway.packet.digest import digest_check
from gateway.packet.envelope import MEDIA_TYPE
from gateway.packet.signature import Signature, SignatureError, verify
from gateway.policy import NO_EVIDENCE, Evidence, Limit
from gateway.refusal import Reason, Refusal
from gateway.routes import Granted, Route
from gateway.snapshot import EMPTY, Judgement, Shadow, Snapshot
from gateway.verdict import Forward, Refuse, Verdict

__all__ = [
    "EMPTY",
    "NO_EVIDENCE",
    "Evidence",
    "Forward",
    "Granted",
    "Judgement",
    "Limit",
    "Refuse",
    "Route",
    "Shadow",
    "Snapshot",
    "Verdict",
    "decide",
    "judge",
]


def decide(
    head: RequestHead,
    principal: Principal | None,
    snapshot: Snapshot,
    now: float,
    entropy: Callable[[int], int],
    *,
    assume: Evidence | None = None,
    held: Credential | None = None,
    destination: str = "",
) -> Verdict:
    """Decide what becomes of a request.

    Args:
        head: the request as it arrived.
        principal: the authenticated caller, ``None`` for one without an identity.
        snapshot: what is in force.
        now: seconds since the epoch.
        entropy: ``random.getrandbits`` or its like; read only to mint an id.
        assume: what to take as proven about a hypothetical packet, instead of looking for proof in it.
        held: the handoff credential to take for shown and verified, likewise.
        destination: where the packet was bound for, a `place`: it goes to the agent there, or nowhere.  Empty for
            one that was sent to the gateway itself.

    """
    trusted = False
    if snapshot.trusted_hops and principal is not None:
        trusted = any(pattern.matches(principal.id) for pattern in snapshot.trusted_hops)
    sifted = sift(head.fields, trusted_hop=trusted)
    flight = sifted.flight
    traceparent = flight.get(names.TRACEPARENT, b"")
    content_type = flight.get(names.CONTENT_TYPE, b"")
    try:
        packet = parse(head, flight, lambda: uuid7(now, entropy))
        digest = _known_digest(flight)
    except MalformedPacketError as malformed:
        refusal = Refusal(Reason.MALFORMED_PACKET, str(malformed))
        return Refuse(refusal, None, content_type, traceparent)
    if principal is None:
        return Refuse(_ANONYMOUS, packet, content_type, traceparent)
    signature: Signature | None = None
    if assume is None and (names.SIGNATURE in flight or names.SIGNATURE_INPUT in flight):
        try:
            signature = verify(head, snapshot.keys, principal, now)
        except SignatureError as error:
            return Refuse(Refusal(Reason.SIGNATURE_INVALID, str(error)), packet, content_type, traceparent)
    evidence = _evidence(signature, digest) if assume is None else assume
    authority = snapshot.authority
    if names.CREDENTIAL in flight and assume is None and held is None:
        shown = snapshot.credential(flight[names.CREDENTIAL], principal, now)
        if isinstance(shown, Refusal):
            return Refuse(shown, packet, content_type, traceparent, evidence)
        held = shown
    if snapshot.revocations.entries:
        keyid = signature.keyid if signature is not None else ""
        stopped = snapshot.revocations.refusal_of(principal, now, packet, held, keyid=keyid)
        if stopped is not None:
            return Refuse(stopped, packet, content_type, traceparent, evidence, held=held)
    if authority is not None:
        objection = authority.objection(held, packet)
        if objection is not None:
            return Refuse(objection, packet, content_type, traceparent, evidence, held=held)
    judgement = judge(packet, head, principal, evidence, snapshot, now, held)
    route = judgement.route
    if judgement.leaving is not None and not packet.alone:
        route = judgement.leaving
    if isinstance(route, Refusal):
        return Refuse(route, packet, content_type, traceparent, evidence, judgement.shadow, held)
    if destination:
        bound = _bound_for(destination, route, snapshot, packet.capabilities.label)
        if isinstance(bound, Refusal):
            return Refuse(bound, packet, content_type, traceparent, evidence, judgement.shadow, held)
        route = bound
    onward = sifted.onward
    if names.ID not in flight:
        onward.append((names.ID, names.sf_string(packet.id)))
    if names.CAPABILITY not in flight:
        onward.append((names.CAPABILITY, packet.capabilities.label.encode("ascii")))
    onward.append((names.FROM, names.sf_string(principal.id)))
    agent = route.ring.owner(packet.affinity)
    return Forward(
        packet,
        agent,
        route,
        onward,
        traceparent,
        evidence,
        signature,
        digest,
        content_type.partition(b";")[0].strip().lower() == _ENVELOPE,
        judgement.shadow,
        held,
    )


def _bound_for(destination: str, route: Route, snapshot: Snapshot, label: str) -> Route | Refusal:
    """What is left of `route` for a packet that was bound for `destination`: nobody else gets it."""
    there = snapshot.routes.at.get(destination)
    if there is None:
        detail = f"{destination[:100]} is no member's address, and there is no way out of the mesh here"
        return Refusal(Reason.DESTINATION_REFUSED, detail)
    admitted = [name for name in there if name in route.grants]
    if not admitted:
        detail = f"no policy lets {label} go to {there[0]}, which is at {destination}, or it does not offer that"
        return Refusal(Reason.DESTINATION_REFUSED, detail)
    left = snapshot.routes.avoiding(route, frozenset(route.grants).difference(admitted))
    if left is None:
        detail = f"{label}: {admitted[0]}, which is at {destination}, is not ready; try again later"
        return Refusal(Reason.NO_ELIGIBLE_AGENT, detail, retry_after_s=NO_AGENT_RETRY_AFTER_S)
    return left


_ANONYMOUS = Refusal(
    Reason.IDENTITY_REQUIRED,
    "present a client certificate (an X.509-SVID with one SPIFFE URI SAN) that the gateway's trust bundle vouches for",
)


def _known_digest(flight: dict[bytes, bytes]) -> bytes:
    """The ``content-digest`` field, where it names an algorithm that is known here; else empty."""
    field = flight.get(names.CONTENT_DIGEST)
    return field if field is not None and digest_check(field) is not None else b""


def _evidence(signature: Signature | None, digest: bytes) -> Evidence:
    if signature is not None:
        return Evidence(signature.signer, signature.covered, bool(digest))
    return _DIGEST if digest else NO_EVIDENCE


_DIGEST = Evidence(digest=True)
_ENVELOPE = MEDIA_TYPE.encode()


def uuid7(now: float, entropy: Callable[[int], int]) -> str:
    """A time-ordered id (RFC 9562 section 5.7) from `now` in epoch seconds and 74 random bits."""
    bits = entropy(74)
    stamp = int(now * 1000) & 0xFFFF_FFFF_FFFF
    value = stamp << 80 | 0x7 << 76 | bits >> 62 << 64 | 0b10 << 62 | bits & 0x3FFF_FFFF_FFFF_FFFF
    digits = value.to_bytes(16, "big").hex()  # a format for each of the five parts costs twice as much
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
