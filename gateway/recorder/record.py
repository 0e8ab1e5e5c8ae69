"""What is kept of a packet: the decision, what it was made on, and what became of it.  Pure.

Enters: a `Handoff` and the decision that it began with.  Leaves: a `Record`, which is one JSON object; and from it,
again, what `gateway.recording` needs to decide the packet anew.  What of a packet may be kept is said there: no
credential, signature, query or body ever stands in a record.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from gateway.decision import Forward
from gateway.handoff import Handoff, Outcome
from gateway.recording import Decided, Held, Recorded, record

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


def record_of(handoff: Handoff, decided: Decided) -> Record:
    """The record of a handoff."""
    kept = record(decided)
    eligible: tuple[str, ...] = ()
    count = 0
    digest = ""
    verdict = decided.verdict
    if isinstance(verdict, Forward):
        agents = verdict.route.ring.agents
        count = len(agents)
        eligible = tuple([agent.name for agent in agents[:MAX_ELIGIBLE]])
        digest = verdict.content_digest.decode("latin-1")
    made = Record(
        *msgspec.structs.astuple(handoff),
        decided=Judged(
            kept.allow,
            kept.scheme,
            kept.protocol,
            kept.fields,
            kept.covered,
            kept.digest,
            kept.agent if kept.agent != handoff.agent else "",
            kept.reason if kept.reason != handoff.reason else "",
            kept.policy if kept.policy != handoff.policy else "",
            kept.rule if kept.rule != handoff.rule else "",
            kept.revision if kept.revision != handoff.revision else "",
            kept.held,
        ),
        eligible=eligible,
        eligible_count=count,
        content_digest=digest,
    )
    if len(kept.path) != len(handoff.path) or len(kept.authority) != len(handoff.authority):
        # The access log cuts what is very long; a decision may depend on all of it.
        return msgspec.structs.replace(made, path=kept.path, authority=kept.authority)
    return made


def open_record(decided: Decided, agent: str) -> Record:
    """The record of a packet that is under way.

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
