"""Records, made of handoffs and of the decisions that they began with, and read again as decisions.  Pure.

Enters: a `Handoff` and the decision that it began with.  Leaves: a `Record` as one JSON object; and of a `Record`,
what `gateway.recording` needs to decide the packet anew.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from gateway.decision import Forward
from gateway.handoff import Handoff, Outcome
from gateway.recorded import Recorded
from gateway.recorder.record import MAX_ELIGIBLE, Addition, Judged, Record
from gateway.recording import covered_of, decided_by, kept_fields, kept_of, record
from gateway.verdict import Decided

_encode = msgspec.json.Encoder().encode


def line_of(handoff: Handoff) -> bytes:
    """The handoff as JSON on one line, as the access log has it."""
    return _encode(handoff)


def record_of(handoff: Handoff, decided: Decided, line: bytes = b"") -> bytes:
    """The record of a handoff: a `Record`, as JSON on one line.

    Args:
        handoff: it.
        decided: the decision that it began with.
        line: `line_of` the handoff, where that is there already.

    """
    head, verdict = decided.head, decided.verdict
    agent, reason, policy, rule = decided_by(verdict)
    judged = Judged(
        not reason,
        head.scheme.decode("latin-1"),
        head.protocol.decode("latin-1"),
        kept_fields(head, verdict.packet),
        covered_of(verdict.evidence),
        verdict.evidence.digest,
        agent if agent != handoff.agent else "",
        reason if reason != handoff.reason else "",
        policy if policy != handoff.policy else "",
        rule if rule != handoff.rule else "",
        decided.revision if decided.revision != handoff.revision else "",
        kept_of(verdict.held) if verdict.held is not None else None,
    )
    if isinstance(verdict, Forward):
        agents = verdict.route.ring.agents
        eligible = tuple([agent.name for agent in agents[:MAX_ELIGIBLE]])
        rest = Addition(judged, eligible, len(agents), verdict.content_digest.decode("latin-1"))
    else:
        rest = Addition(judged)
    path = head.path.partition(b"?")[0]
    if len(path) != len(handoff.path) or len(head.authority) != len(handoff.authority):
        # The access log cuts what is very long; a decision may depend on all of it.
        authority = head.authority.decode("latin-1")
        line = line_of(msgspec.structs.replace(handoff, path=path.decode("latin-1"), authority=authority))
    # Each is an object; together they are one, as if it had been made of all the values at once, which costs twice.
    return b"%s,%s" % ((line or line_of(handoff))[:-1], _encode(rest)[1:])


def open_record(decided: Decided, agent: str) -> bytes:
    """The record of a packet that is under way, likewise.

    Args:
        decided: the decision that it began with.
        agent: who has it; empty when nobody has yet.

    """
    kept = record(decided)
    packet = decided.verdict.packet
    handoff = Handoff(
        time=datetime.fromtimestamp(decided.now, UTC),
        outcome=Outcome.OPEN,
        flight_id=kept.flight_id,
        conversation=packet.conversation if packet is not None else "",
        task=packet.task if packet is not None else "",
        parent=packet.parent if packet is not None else "",
        caller=kept.caller,
        signer=kept.signer,
        capability=kept.capability,
        agent=agent,
        policy=kept.policy,
        rule=kept.rule,
        revision=kept.revision,
        method=kept.method,
        authority=kept.authority,
        path=kept.path,
        destination=kept.destination,
    )
    return record_of(handoff, decided)


def recorded(kept: Record) -> Recorded:
    """The decision, as `gateway.recording` decides it again."""
    judged = kept.decided
    allow = judged.allow
    return Recorded(
        time=kept.time,
        allow=allow,
        flight_id=kept.flight_id,
        caller=kept.caller,
        capability=kept.capability,
        method=kept.method,
        scheme=judged.scheme,
        authority=kept.authority,
        path=kept.path,
        protocol=judged.protocol,
        fields=judged.fields,
        signer=kept.signer,
        covered=judged.covered,
        digest=judged.digest,
        agent=(judged.agent or kept.agent) if allow else "",
        reason="" if allow else judged.reason or kept.reason,
        policy=judged.policy or kept.policy,
        rule=judged.rule or kept.rule,
        revision=judged.revision or kept.revision,
        held=judged.held,
        destination=kept.destination,
    )
