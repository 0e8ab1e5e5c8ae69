"""What is in force at a moment, and what has been judged under it.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field, replace

import msgspec

from gateway.authority import (
    NO_AUTHORITY,
    NO_REVOCATIONS,
    Authority,
    Credential,
    CredentialError,
    Revocations,
    invalid,
)
from gateway.identity import Principal, PrincipalPattern
from gateway.packet import Capabilities
from gateway.packet.keys import KeySet
from gateway.policy import Candidates, PolicySet
from gateway.policy.brokering import NO_BROKERING, Brokering
from gateway.refusal import Refusal
from gateway.routes import Change, Granted, Route, Routes
from gateway.routing import DEFAULT_POINTS, Agent

MAX_OFFERED = 1_000
"""Different sets of capabilities; a gateway that sees more takes what is gone for what never was."""


class Shadow(msgspec.Struct, frozen=True):
    """What would be different if the shadow policies were enforced."""

    allow: bool
    rules: tuple[str, ...]
    """The shadow rules that speak about the packet, as ``policy/rule``."""
    reason: str = ""
    """Of the refusal there would be."""
    agents: tuple[str, ...] = ()
    """Names of the agents that the packet could go to."""
    asks: tuple[str, ...] = ()
    """The rules that would ask first, as ``policy/rule``, where those in force would not."""


class Judgement(msgspec.Struct, frozen=True):
    """What is to become of a packet, before an agent is picked."""

    route: Route | Refusal
    grants: Mapping[str, Granted] = {}
    """Every agent that policy admits, ready or not: an open stream to one of these may go on."""
    shadow: Shadow | None = None
    """``None`` when enforcing the shadow policies would change nothing."""
    leaving: Route | None = None
    """Where no agent is ready: the way to those that drain, for packets of conversations that are there."""


class Case(msgspec.Struct, frozen=True):
    """The packets of one sender that ask for the same: their rules, and the judgements so far."""

    candidates: Candidates
    judgements: dict[tuple[bytes, bool], Judgement]
    """By what the rules' conditions came to, and by whether somebody else has signed the packet."""


NO_KEYS = KeySet()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision reads, immutable, with a revision that is a hash of what people wrote."""

    revision: str
    policies: PolicySet
    agents: tuple[Agent, ...]
    """Sorted by name."""
    trusted_hops: tuple[PrincipalPattern, ...] = ()
    keys: KeySet = NO_KEYS
    """Of those who sign packets; a caller's certificate brings its own key."""
    brokering: Brokering = NO_BROKERING
    """Which agents are given secrets, and where these are kept: no secret itself."""
    zone: str = ""
    """Where the gateway runs: agents there are preferred."""
    points: int = DEFAULT_POINTS
    """On a ring, of an agent whose weight is 1."""
    offered: frozenset[frozenset[str]] = frozenset()
    """What agents have offered, together, since the gateway started; at most `MAX_OFFERED`."""
    authority: Authority | None = None
    """Gives and takes handoff credentials; without one there are none."""
    revocations: Revocations = NO_REVOCATIONS
    """What is stopped, whatever policies say."""
    carried: InitVar[Routes | None] = None
    """Routes from the snapshot before."""
    routes: Routes = field(init=False, compare=False, repr=False)
    cases: dict[tuple[str, Capabilities], Case] = field(default_factory=dict, compare=False, repr=False)
    """Memo of what has been judged; emptied when it is full."""

    def __post_init__(self, carried: Routes | None) -> None:
        object.__setattr__(self, "routes", carried or Routes(self.agents, self.revision, self.zone, self.points))

    def credential(self, raw: bytes, principal: Principal, now: float) -> Credential | Refusal:
        """The handoff credential `raw`, shown by `principal`, or why it does not hold, as one that is revoked.

        Args:
            raw: the value of ``flight-credential``.
            principal: the caller.
            now: seconds since the epoch.

        """
        if self.authority is None:
            return NO_AUTHORITY
        try:
            held = self.authority.verify(raw, principal, now)
        except CredentialError as error:
            return invalid(error)
        return self.revocations.refusal_of(principal, now, held=held) or held

    def with_agents(self, agents: tuple[Agent, ...]) -> Snapshot:
        """The snapshot after members came, went or changed; policies and revision stay.

        Args:
            agents: all of them, sorted by name.

        """
        before = {agent.name: agent for agent in self.agents}
        changes: list[Change] = []
        for agent in agents:
            was = before.pop(agent.name, None)
            if was is not agent and was != agent:
                changes.append(Change(was, agent))
        changes += [Change(agent, None) for agent in before.values()]
        if not changes:
            return self
        concerned = (agent for change in changes for agent in change if agent is not None)
        offered = offered_by(concerned, self.offered)
        routes = self.routes.changed(agents, changes)
        return replace(self, agents=agents, offered=offered, carried=routes, cases={})

    def with_revocations(self, revocations: Revocations) -> Snapshot:
        """The snapshot with these revocations; everything else stays, what is remembered of it, too."""
        return self if revocations is self.revocations else replace(self, revocations=revocations, carried=self.routes)


def offered_by(agents: Iterable[Agent], before: frozenset[frozenset[str]] = frozenset()) -> frozenset[frozenset[str]]:
    """What `agents` offer, and what was offered `before`."""
    offered = before | {agent.capabilities for agent in agents}
    return offered if len(offered) <= MAX_OFFERED else before


EMPTY = Snapshot("none", PolicySet(()), ())
