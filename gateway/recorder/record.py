"""What is kept of a packet: the decision, what it was made on, and what became of it.  Pure.

Enters: a `Handoff` and the decision that it began with.  Leaves: a `Record` as one JSON object; and of a `Record`,
what `gateway.recording` needs to decide the packet anew.  What of a packet may be kept is said there: no credential,
signature, query or body ever stands in a record.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from gateway.decision import Forward
from gateway.handoff import Handoff, Outcome
from gateway.recording import Decided, Held, Recorded, covered_of, decided_by, kept_fields, kept_of, record

MAX_ELIGIBLE = 16
"""Names of agents in a record; there may be more of them, and their number is told."""


class Judged(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The decision, where it is not told by the handoff: that may have gone to another agent, or been refused later."""

    allow: bool
    scheme: str = ""
    protocol: str = ""
    """Of an extended CONNECT."""
    fields: list[tuple[str, str]] = []
    """Those of `gateway.recording.FIELDS`, as they came."""
    covered: tuple[str, ...] = ()
    """What the signature covers."""
    digest: bool = False
    agent: str = ""
    """The ring's first choice, where the packet went to another; so are the next four: as decided, where in the end
    it was otherwise."""
    reason: str = ""
    policy: str = ""
    rule: str = ""
    revision: str = ""
    held: Held | None = None
    """What the decision read of the handoff credential that came with it."""


class Record(Handoff, frozen=True, omit_defaults=True, kw_only=True, rename={"caller": "from"}):
    """A handoff, and what it was decided on; texts from the wire are latin-1, so that each byte is one character.

    With the outcome `Outcome.OPEN` it tells of a packet that is still under way; another one follows at its end.
    """

    decided: Judged
    eligible: tuple[str, ...] = ()
    """The agents that were ready and that policy admits, at most `MAX_ELIGIBLE` of them."""
    eligible_count: int = 0
    """How many there were."""
    content_digest: str = ""
    """Of the payload, as its sender says; what came was held against it."""

    @property
    def budget(self) -> str:
        """What was left to spend, as the packet says."""
        return self._field("flight-budget")

    @property
    def timeout(self) -> str:
        """The milliseconds that were left, as the packet says."""
        return self._field("flight-timeout")

    def _field(self, name: str) -> str:
        return ", ".join(value for each, value in self.decided.fields if each == name)


class _Decision(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a `Record` has beyond its handoff, in the order in which it is written."""

    decided: Judged
    eligible: tuple[str, ...] = ()
    eligible_count: int = 0
    content_digest: str = ""


_encode = msgspec.json.Encoder().encode


def record_of(handoff: Handoff, decided: Decided) -> bytes:
    """The record of a handoff: a `Record`, as JSON on one line."""
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
        rest = _Decision(judged, eligible, len(agents), verdict.content_digest.decode("latin-1"))
    else:
        rest = _Decision(judged)
    path = head.path.partition(b"?")[0]
    if len(path) != len(handoff.path) or len(head.authority) != len(handoff.authority):
        # The access log cuts what is very long; a decision may depend on all of it.
        handoff = msgspec.structs.replace(
            handoff, path=path.decode("latin-1"), authority=head.authority.decode("latin-1")
        )
    # Each is an object; together they are one, as if it had been made of all the values at once, which costs twice.
    return b"%s,%s" % (_encode(handoff)[:-1], _encode(rest)[1:])


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
