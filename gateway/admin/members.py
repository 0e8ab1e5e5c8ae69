"""``/members`` and ``/ring``: who takes packets, why not, and which part of the circle is whose."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.operators import refused
from gateway.admin.stream import json
from gateway.decision import Snapshot
from gateway.routing import Agent, AgentState, Ring
from gateway.routing.plan import key_shares

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

MAX_ARCS: Final = 2_000
"""Of a ring's picture; of one with more pieces it is drawn who owns the middle of each of so many equal ones."""
_CIRCLE: Final = 2.0**64


class Member(msgspec.Struct, frozen=True):
    """One agent."""

    name: str
    address: str
    protocol: str
    spiffe_id: str | None
    capabilities: list[str]
    state: str
    why: str
    """Why it is not ready, or has less than its share."""
    trust: float
    reliability: float
    weight: float
    zone: str
    in_flight: int
    """Packets that it has, or that wait for it."""
    share: float
    """Of the points on the ring of all agents that are ready."""
    source: str
    """``file``, ``kubernetes`` or ``registration``."""


class Members(msgspec.Struct, frozen=True):
    """The answer of ``/members``."""

    members: list[Member]


class OnRing(msgspec.Struct, frozen=True):
    """One agent and its part of the circle."""

    name: str
    state: str
    share: float
    """Of all keys, 0 to 1: the length of its arcs, measured before they are drawn."""
    in_flight: int
    arcs: list[tuple[float, float]]
    """From and to, as fractions of the circle, clockwise."""


class Circle(msgspec.Struct, frozen=True):
    """The answer of ``/ring``."""

    capability: str
    members: list[OnRing]


def why(gateway: Gateway, agent: Agent) -> str:
    """Why `agent` is not ready, or has less than its share; empty when there is nothing to tell."""
    membership = gateway.membership
    override = membership.overrides.all.get(agent.name)
    if override is not None and override.state is agent.state:
        return f"{_DONE[override.state]} by {override.who} at {override.at.isoformat(timespec='seconds')}"
    observed = membership.health.why(agent.name)
    if observed or agent.state in (AgentState.READY, AgentState.EJECTED):
        return observed
    return f"its source has it {agent.state.value}"


_DONE = {AgentState.DRAINING: "drained", AgentState.EJECTED: "ejected", AgentState.RETIRED: "retired"}


def described(gateway: Gateway, in_flight: Mapping[str, int]) -> Members:
    """All members; for a thread, since they may be thousands."""
    snapshot = gateway.snapshot
    whole = snapshot.routes.all_ready()
    sources = gateway.membership.whose()
    return Members([member(gateway, agent, whole, sources, in_flight) for agent in snapshot.agents])


def member(
    gateway: Gateway, agent: Agent, whole: Ring, sources: Mapping[str, str], in_flight: Mapping[str, int]
) -> Member:
    """One of them.

    Args:
        gateway: whose member it is.
        agent: it.
        whole: the ring of all that are ready.
        sources: where members come from, by name.
        in_flight: how many packets they have, by name.

    """
    return Member(
        agent.name,
        f"{agent.host}:{agent.port}",
        agent.protocol.value,
        agent.spiffe_id,
        sorted(agent.capabilities),
        agent.state.value,
        why(gateway, agent),
        agent.trust,
        agent.reliability,
        agent.weight,
        agent.zone,
        in_flight.get(agent.name, 0),
        round(whole.share(agent), 6),
        sources.get(agent.name, ""),
    )


def one(gateway: Gateway, name: str) -> Member | None:
    """The member `name`, ``None`` where there is none."""
    snapshot = gateway.snapshot
    agent = snapshot.routes.members.get(name)
    if agent is None:
        return None
    return member(gateway, agent, snapshot.routes.all_ready(), gateway.membership.whose(), _in_flight(gateway))


def _in_flight(gateway: Gateway) -> Mapping[str, int]:
    return gateway.plane.in_flight_by_agent() if gateway.plane is not None else {}


def drawn(snapshot: Snapshot, wanted: frozenset[str], in_flight: Mapping[str, int], label: str) -> Circle:
    """The ring of the agents that offer all of `wanted`, policies aside; for a thread."""
    offering = [agent for agent in snapshot.agents if wanted <= agent.capabilities]
    ring = snapshot.routes.all_ready().only(frozenset(agent.name for agent in offering))
    arcs = _arcs(ring)
    shares = {agent.name: share for agent, share in zip(ring.agents, _shares(ring), strict=True)}
    return Circle(
        label,
        [
            OnRing(
                agent.name,
                agent.state.value,
                round(shares.get(agent.name, 0.0), 6),
                in_flight.get(agent.name, 0),
                arcs.get(agent.name, []),
            )
            for agent in offering
        ],
    )


def _shares(ring: Ring) -> list[float]:
    return key_shares(ring).tolist() if ring.agents else []


def _arcs(ring: Ring) -> dict[str, list[tuple[float, float]]]:
    """Each agent's pieces: a key belongs to the first point at or after it, so that a piece ends at its owner's."""
    if not ring.agents:
        return {}
    marks = ring.marks()
    if len(marks.points) <= MAX_ARCS:
        ends, owners = marks.points / _CIRCLE, marks.owners
    else:
        ends = np.arange(1, MAX_ARCS + 1) / MAX_ARCS
        middles = ((ends - 0.5 / MAX_ARCS) * _CIRCLE).astype(np.uint64)
        at = np.searchsorted(marks.points, middles)
        owners = marks.owners.take(at % len(marks.owners))
    arcs: dict[str, list[tuple[float, float]]] = {agent.name: [] for agent in ring.agents}
    begins = 0.0
    for end, owner, after in zip(ends.tolist(), owners.tolist(), [*owners[1:].tolist(), -1], strict=True):
        if owner != after:
            arcs[ring.agents[owner].name].append((round(begins, 6), round(end, 6)))
            begins = end
    if begins < 1:
        arcs[ring.agents[owners[0]].name].append((round(begins, 6), 1.0))
    return {name: _joined(pieces) for name, pieces in arcs.items()}


def _joined(pieces: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The last piece and the one before it as one, where they touch: what lies after the last point is the first's."""
    if len(pieces) > 1 and pieces[-2][1] == pieces[-1][0]:
        return [*pieces[:-2], (pieces[-2][0], pieces[-1][1])]
    return pieces


def member_routes(gateway: Gateway) -> list[Route]:
    """The endpoints of `gateway`."""

    async def members(_: Request) -> Response:
        return json(await asyncio.to_thread(described, gateway, _in_flight(gateway)))

    async def ring(request: Request) -> Response:
        label = request.query_params.get("capability", "")
        wanted = frozenset(name for name in (part.strip() for part in label.split(",")) if name)
        circle = await asyncio.to_thread(drawn, gateway.snapshot, wanted, _in_flight(gateway), label)
        if not circle.members:
            return refused(404, f"no member offers {label}")
        return json(circle)

    return [Route("/members", members), Route("/ring", ring)]
