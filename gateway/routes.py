"""Routes: for each thing that policy allows, the agents that it may go to, as a ring.  Pure.

Enters: rulings and members.  Leaves: a `Route`, or why there is none.
A route is made when it is first asked for, and carried along from then on: an agent that comes, goes or changes
costs each route one look at that agent.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import NamedTuple

import msgspec

from gateway.identity import SpiffeId
from gateway.packet import Capabilities
from gateway.packet import fields as names
from gateway.policy import Allow, Ask, CompiledRule, ContextTerms, Limit
from gateway.policy.model import Grant
from gateway.refusal import Refusal
from gateway.routing import DEFAULT_POINTS, Agent, AgentState, Load, Ring

MAX_ROUTES = 1_000
MAX_POINTS = 20_000_000
"""Of all rings together, at 12 bytes each; beyond either bound everything is forgotten and made anew when asked for."""
EVEN_SHARE = 0.8
"""A zone keeps its packets while its agents weigh at least so much of a fair share of all."""


class Granted(msgspec.Struct, frozen=True):
    """The rules that admit an agent, one or more for each capability of the packet, first things first."""

    policy: str
    rule: str
    """Of the first capability; so is `policy`."""
    decision_value: bytes
    """The value of ``flight-decision``."""
    limits: tuple[Limit, ...] = ()
    """How often these rules allow."""
    grants: tuple[Grant, ...] = ()
    """What these rules let the agent do with the work; a rule without a grant sets no bounds."""
    context: ContextTerms | None = None
    """What any of these rules says of the packet's context."""
    approvals: tuple[Ask, ...] = ()
    """What of these rules has to be approved, each of them."""
    audited: bool = False
    """Whether one of these rules wants what it allows recorded."""
    staged: bool = False
    """Whether a packet goes through the stages before it goes to the agent: for a grant, an approval or a context."""


class Route(msgspec.Struct, frozen=True):
    """A decided way: the agents that are ready, as a ring, and the rules that admit each agent."""

    ring: Ring
    grants: Mapping[str, Granted]
    """By agent name: every agent that policy admits, ready or not."""
    load: Load
    """What is under way at each agent on this route: the one thing here that lives, and outlives the snapshot."""
    wider: Ring
    """`ring`, and the agents of other zones."""
    members: Mapping[str, Agent]
    """Every member by name, admitted or not."""
    full: Refusal | None = None
    """Of a way to agents that drain, all of them: what is told to packets that are of no conversation there."""


def place(host: str, port: int) -> str:
    """An IP address, in its canonical form, and a port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Change(NamedTuple):
    """An agent as it was and as it is; ``None`` where it is no member."""

    before: Agent | None
    after: Agent | None


class Admitted(msgspec.Struct, frozen=True):
    """The agents that a ruling admits for the capabilities and the trust that a packet asks for."""

    allow: Allow
    wanted: frozenset[str]
    min_trust: float
    capable: int
    """How many members offer what is wanted, admitted or not."""
    grants: Mapping[str, Granted]
    ready: Ring
    near: Ring
    """Those of `ready` that are in the gateway's zone."""
    load: Load
    route: Route | None
    """``None`` when no agent is ready."""

    def leaving(self, members: Mapping[str, Agent], full: Refusal) -> Route | None:
        """The way to agents that drain, for conversations that are there; ``None`` when there are no such agents.

        Args:
            members: every member by name.
            full: what is told to all other packets.

        """
        draining = [members[name] for name in self.grants if members[name].state is AgentState.DRAINING]
        if not draining:
            return None
        ring = Ring(draining, 1)  # it places nothing
        return Route(ring, self.grants, self.load, ring, members, full)


def _holds_its_share(near: Ring, ready: Ring) -> bool:
    """Whether the agents of one zone can take the packets of that zone, if each zone has as many."""
    if not near.agents:
        return False
    zones = len({agent.zone for agent in ready.agents if agent.zone})
    return near.weight * zones >= EVEN_SHARE * ready.weight


class Routes:
    """The routes of one snapshot."""

    __slots__ = (
        "_admitted",
        "_all",
        "_at",
        "_avoiding",
        "_granted",
        "_held",
        "_rings",
        "_shown_by",
        "agents",
        "members",
        "points",
        "revision",
        "zone",
    )

    def __init__(self, agents: tuple[Agent, ...], revision: str, zone: str = "", points: int = DEFAULT_POINTS) -> None:
        self.agents = agents
        self.members = {agent.name: agent for agent in agents}
        self.revision = revision
        self.zone = zone
        self.points = points
        self._admitted: dict[tuple[Hashable, Capabilities], Admitted] = {}
        self._granted: dict[tuple[CompiledRule, ...], Granted] = {}
        self._rings: dict[tuple[str, ...], Ring] = {}
        """By the names of their agents: what different rulings admit is often the same."""
        self._held = 0
        self._all: Ring | None = None
        """Of all agents that are ready, once it has been asked for: others are cut out of it."""
        self._avoiding: dict[tuple[int, frozenset[str]], tuple[Route, Route | None]] = {}
        """By a route and the agents that are left out of it: the route, which lives on here, and what remains."""
        self._shown_by: dict[SpiffeId, tuple[str, ...]] | None = None
        self._at: dict[str, tuple[str, ...]] | None = None

    def admitted(self, allow: Allow, capabilities: Capabilities) -> Admitted:
        """The agents that `allow` admits for `capabilities`."""
        key = (allow.key, capabilities)
        found = self._admitted.get(key)
        if found is None:
            if len(self._admitted) >= MAX_ROUTES or self._held > MAX_POINTS:
                self._admitted.clear()
                self._rings.clear()
                self._held = 0
            found = self._admitted[key] = self._admit(allow, capabilities)
        return found

    @property
    def shown_by(self) -> Mapping[SpiffeId, tuple[str, ...]]:
        """The names of the agents that show each SPIFFE id."""
        found = self._shown_by
        if found is None:
            found = {}
            for agent in self.agents:
                if agent.spiffe_id is not None:
                    found[agent.spiffe_id] = (*found.get(agent.spiffe_id, ()), agent.name)
            self._shown_by = found
        return found

    @property
    def at(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the agents at each `place`; whoever has a name for an address is nowhere here."""
        found = self._at
        if found is None:
            found = {}
            for agent in self.agents:
                try:
                    where = place(str(ip_address(agent.host)), agent.port)
                except ValueError:
                    continue
                found[where] = (*found.get(where, ()), agent.name)
            self._at = found
        return found

    def avoiding(self, route: Route, names: frozenset[str]) -> Route | None:
        """`route` without the agents `names`; ``None`` when nobody is left."""
        key = (id(route), names)
        found = self._avoiding.get(key)
        if found is None:
            if len(self._avoiding) >= MAX_ROUTES:
                self._avoiding.clear()
            found = self._avoiding[key] = route, _avoiding(route, names)
        return found[1]

    def widest(self) -> dict[str, Admitted]:
        """For each set of capabilities that somebody offers, by its label, the route in use with the most agents."""
        found: dict[str, Admitted] = {}
        for (_, capabilities), admitted in list(self._admitted.items()):
            known = found.get(capabilities.label)
            if admitted.capable and (known is None or len(admitted.ready.agents) > len(known.ready.agents)):
                found[capabilities.label] = admitted
        return found

    def _admit(self, allow: Allow, capabilities: Capabilities) -> Admitted:
        wanted, min_trust = frozenset(capabilities.names), capabilities.min_trust
        capable = [agent for agent in self.agents if wanted <= agent.capabilities]
        grants: dict[str, Granted] = {}
        ready: list[Agent] = []
        for agent in capable:
            granted = self._grant(allow, agent, min_trust)
            if granted is not None:
                grants[agent.name] = granted
                if agent.state is AgentState.READY:
                    ready.append(agent)
        near = [agent for agent in ready if self.zone and agent.zone == self.zone]
        ring, close = self._ring(ready), self._ring(near)
        load = Load()
        way = self._way(ring, close, grants, load)
        return Admitted(allow, wanted, min_trust, len(capable), grants, ring, close, load, way)

    def _way(self, ready: Ring, near: Ring, grants: Mapping[str, Granted], load: Load) -> Route | None:
        if not ready.agents:
            return None
        ring = near if _holds_its_share(near, ready) else ready
        return Route(ring, grants, load, ready, self.members)

    def _grant(self, allow: Allow, agent: Agent, min_trust: float) -> Granted | None:
        rules = allow.admits(agent) if agent.trust >= min_trust else ()
        if not rules:
            return None
        granted = self._granted.get(rules)
        if granted is None:
            granted = self._granted[rules] = _granted(rules, self.revision)
        return granted

    def _ring(self, agents: list[Agent]) -> Ring:
        key = tuple(agent.name for agent in agents)
        ring = self._rings.get(key)
        if ring is None:
            everybody = self.all_ready()
            ring = everybody if len(key) == len(everybody.agents) else everybody.only(frozenset(key))
            self._rings[key] = ring
            self._held += len(ring)
        return ring

    def all_ready(self) -> Ring:
        """The ring of all agents that are ready, made now unless it is there."""
        if self._all is None:
            ready = (agent for agent in self.agents if agent.state is AgentState.READY)
            self._all = Ring(ready, self.points)
        return self._all

    def changed(self, agents: tuple[Agent, ...], changes: Iterable[Change]) -> Routes:
        """The routes of the next snapshot, in which `changes` have led to `agents`; policies are the same."""
        changes = tuple(changes)
        after = Routes(agents, self.revision, self.zone, self.points)
        after._granted = dict(self._granted)
        rings: dict[tuple[int, tuple[str, ...], tuple[str, ...]], Ring] = {}
        """Rings as they are now, by what they were and what has changed: many routes share one."""
        if self._all is not None:
            ready = {
                name: agent if agent is not None and agent.state is AgentState.READY else None
                for name, agent in _named(changes)
            }
            after._all = _turned(self._all, ready, rings)
        for key, admitted in list(self._admitted.items()):
            after._admitted[key] = after._follow(admitted, changes, rings)
        for ring in {id(ring): ring for each in after._admitted.values() for ring in (each.ready, each.near)}.values():
            after._rings[tuple(agent.name for agent in ring.agents)] = ring
            after._held += len(ring)
        return after

    def _follow(
        self,
        admitted: Admitted,
        changes: tuple[Change, ...],
        rings: dict[tuple[int, tuple[str, ...], tuple[str, ...]], Ring],
    ) -> Admitted:
        capable = admitted.capable
        grants = dict(admitted.grants)
        ready: dict[str, Agent | None] = {}
        for before, after in ((change.before, change.after) for change in changes):
            was = before is not None and admitted.wanted <= before.capabilities
            now = after is not None and admitted.wanted <= after.capabilities
            capable += now - was
            if not (was or now):
                continue
            granted = self._grant(admitted.allow, after, admitted.min_trust) if after is not None and now else None
            name = (after or before).name  # type: ignore[union-attr]
            if granted is None:
                grants.pop(name, None)
                ready[name] = None
            else:
                assert after is not None
                grants[name] = granted
                ready[name] = after if after.state is AgentState.READY else None

        near = {
            name: agent if agent is not None and self.zone and agent.zone == self.zone else None
            for name, agent in ready.items()
        }
        ring, close = _turned(admitted.ready, ready, rings), _turned(admitted.near, near, rings)
        way = self._way(ring, close, grants, admitted.load)
        return Admitted(
            admitted.allow, admitted.wanted, admitted.min_trust, capable, grants, ring, close, admitted.load, way
        )


def _avoiding(route: Route, names: frozenset[str]) -> Route | None:
    left = {agent.name for agent in route.wider.agents} - names
    if not left:
        return None
    wider = route.wider.only(left)
    near = {agent.name for agent in route.ring.agents} - names
    ring = route.ring.only(near) if near and route.ring is not route.wider else wider
    grants = {name: granted for name, granted in route.grants.items() if name not in names}
    return Route(ring, grants, route.load, wider, route.members, route.full)


def _named(changes: Iterable[Change]) -> Iterator[tuple[str, Agent | None]]:
    """Who has changed, and what has become of it."""
    for before, after in changes:
        agent = after or before
        assert agent is not None
        yield agent.name, after


def _turned(
    ring: Ring,
    ready: Mapping[str, Agent | None],
    rings: dict[tuple[int, tuple[str, ...], tuple[str, ...]], Ring],
) -> Ring:
    """`ring` with those in `ready` on it that are agents, and without the others; each is made once."""
    upserted = [agent for agent in ready.values() if agent is not None]
    removed = [name for name, agent in ready.items() if agent is None]
    key = (id(ring), tuple(agent.name for agent in upserted), tuple(removed))
    if key not in rings:
        rings[key] = ring.changed(upserted, removed)
    return rings[key]


def _granted(rules: tuple[CompiledRule, ...], revision: str) -> Granted:
    first = rules[0]
    value = b"allow;policy=%s;revision=%s" % (names.sf_string(first.policy), names.sf_string(revision))
    distinct = dict.fromkeys(rules)
    grants = tuple(rule.grant for rule in distinct if rule.grant is not None)
    terms = _terms([rule.context for rule in distinct if rule.context is not None])
    asks = tuple(rule.ask for rule in distinct if rule.ask is not None)
    return Granted(
        first.policy,
        first.name,
        value,
        tuple(rule.limit for rule in distinct if rule.limit is not None),
        grants,
        terms,
        asks,
        any(rule.audited for rule in distinct),
        bool(grants or asks) or terms is not None,
    )


def _terms(all_: list[ContextTerms]) -> ContextTerms | None:
    """What several rules say of a packet's context, together."""
    if not all_:
        return None
    return ContextTerms(any(each.required for each in all_), any(each.inline for each in all_))
