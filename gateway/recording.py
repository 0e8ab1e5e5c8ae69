"""What a packet was decided on and what was decided, so that it can be decided again under other policies.  Pure.

Enters: what `decide` read, and its verdict.  Leaves: a `Recorded`, one line of JSON; and from it the packet as far as
a decision reads it.  No credential, signature, query, body or other field of the caller's ever stands in it.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime

from gateway.authority import Credential
from gateway.decision import Evidence, Forward, Snapshot, Verdict, decide
from gateway.identity import Principal, SpiffeId, parse_spiffe_id
from gateway.messages import RequestHead
from gateway.packet import FlightPacket
from gateway.packet import fields as names
from gateway.policy.patterns import parse_capability_pattern
from gateway.recorded import FIELDS, Flip, Held, Question, Recorded
from gateway.verdict import Decided


def record(decided: Decided) -> Recorded:
    """Of a decision, what may be kept for long."""
    head, principal, verdict = decided.head, decided.principal, decided.verdict
    packet, evidence = verdict.packet, verdict.evidence
    agent, reason, policy, rule = decided_by(verdict)
    return Recorded(
        time=datetime.fromtimestamp(decided.now, UTC),
        allow=not reason,
        flight_id=packet.id if packet is not None else "",
        caller=principal.id if principal is not None else "",
        capability=packet.capabilities.label if packet is not None else "",
        method=head.method.decode("latin-1"),
        scheme=head.scheme.decode("latin-1"),
        authority=head.authority.decode("latin-1"),
        path=head.path.partition(b"?")[0].decode("latin-1"),
        protocol=head.protocol.decode("latin-1"),
        fields=kept_fields(head, packet),
        signer=evidence.signer or "",
        covered=covered_of(evidence),
        digest=evidence.digest,
        agent=agent,
        reason=reason,
        policy=policy,
        rule=rule,
        revision=decided.revision,
        held=kept_of(verdict.held) if verdict.held is not None else None,
        destination=decided.destination,
    )


def decided_by(verdict: Verdict) -> tuple[str, str, str, str]:
    """The agent, the reason of a refusal, and the policy and the rule that had the last word."""
    if isinstance(verdict, Forward):
        agent = verdict.agent.name
        granted = verdict.route.grants[agent]
        return agent, "", granted.policy, granted.rule
    refusal = verdict.refusal
    return "", refusal.reason.slug, refusal.policy, refusal.rule


def kept_fields(head: RequestHead, packet: FlightPacket | None) -> list[tuple[str, str]]:
    """Those of `FIELDS`, as they came, and the digest of ``flight-context``."""
    kept = [(FIELDS[name], value.decode("latin-1")) for name, value in head.fields if name in FIELDS]
    return kept + _context(packet) if packet is not None and packet.context else kept


def covered_of(evidence: Evidence) -> tuple[str, ...]:
    """What the signature covers."""
    return tuple(sorted(name.decode("latin-1") for name in evidence.covered)) if evidence.covered else ()


def kept_of(held: Credential) -> Held:
    """What a decision reads of it."""
    patterns = tuple(pattern.text for pattern in held.capabilities)
    return Held(held.root, held.lineage, held.conversation, patterns, dict(held.budget))


def _credential(held: Held, caller: SpiffeId) -> Credential:
    """As far as a decision reads it."""
    lineage = tuple(parse_spiffe_id(each) for each in held.lineage)
    if not lineage:
        raise ValueError("a credential without a lineage")
    return Credential(
        id="",
        parent="",
        root=held.root,
        conversation=held.conversation,
        subject=lineage[0],
        lineage=lineage,
        audience=caller,
        thumbprint="",
        capabilities=tuple(parse_capability_pattern(text) for text in held.capabilities),
        budget=held.budget,
        expires=0.0,
        key="",
    )


def _context(packet: FlightPacket) -> list[tuple[str, str]]:
    """``flight-context`` without its reference, which may be a secret."""
    digest = b64encode(bytes.fromhex(packet.context)).decode("ascii")
    return [(names.CONTEXT.decode("ascii"), f"sha-256=:{digest}:")]


def again(recorded: Recorded) -> Question:
    """The packet as far as a decision reads it, and what was proven about it.

    Raises:
        ValueError: it is no record of ours; the message says why.

    """
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in recorded.fields]
    if recorded.flight_id:
        fields.append((names.ID, names.sf_string(recorded.flight_id)))
    head = RequestHead(
        recorded.method.encode("latin-1"),
        recorded.scheme.encode("latin-1"),
        recorded.authority.encode("latin-1"),
        recorded.path.encode("latin-1"),
        fields,
        recorded.protocol.encode("latin-1"),
    )
    principal = Principal(parse_spiffe_id(recorded.caller)) if recorded.caller else None
    signer = SpiffeId(recorded.signer) if recorded.signer else None
    covered = frozenset(name.encode("latin-1") for name in recorded.covered)
    held = _credential(recorded.held, principal.id) if recorded.held is not None and principal is not None else None
    evidence = Evidence(signer, covered, recorded.digest)
    return Question(head, principal, evidence, held, recorded.destination)


def redecide(recorded: Recorded, snapshot: Snapshot) -> Recorded:
    """What would have become of a judged packet, had `snapshot` been in force when it came.

    Raises:
        ValueError: it is no record of ours; the message says why.

    """
    head, principal, evidence, held, bound = again(recorded)
    now = recorded.time.timestamp()
    verdict = decide(head, principal, snapshot, now, lambda _: 0, assume=evidence, held=held, destination=bound)
    return record(Decided(head, principal, verdict, snapshot.revision, now, bound))


def flip(before: Recorded, after: Recorded) -> Flip | None:
    """How `after` differs from `before` for the sender and the agents; another rule or reason is no difference."""
    if before.allow != after.allow:
        return Flip.NOW_REFUSED if before.allow else Flip.NOW_ALLOWED
    return Flip.OTHER_AGENT if before.agent != after.agent else None
