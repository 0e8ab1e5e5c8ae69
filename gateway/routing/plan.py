"""What a ring does with all keys, and what a change of members does to them.  Pure.

Nothing is sampled: a key falls on each piece of the circle as likely as the piece is long, so that lengths of arcs are
shares of keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.routing.points import Points
from gateway.routing.ring import Ring

Shares = npt.NDArray[np.float64]

_CIRCLE = 2.0**64


@dataclass(frozen=True, slots=True)
class Spread:
    """How evenly something is spread over agents, each measured by its fair share of it."""

    highest: float
    """The most that an agent has, in fair shares: max/mean where all weigh the same."""
    deviation: float
    """The standard deviation of what agents have from their fair shares, in shares of all."""
    variation: float
    """The coefficient of variation: the standard deviation of what agents have, in fair shares."""


@dataclass(frozen=True, slots=True)
class Move:
    """Keys that change their agent."""

    origin: str
    target: str
    share: float
    """Of all keys, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the keys when the members of a ring change; shares of all keys, 0 to 1."""

    joined: tuple[str, ...]
    left: tuple[str, ...]
    reweighted: tuple[str, ...]
    """Members before and after, with another share of the virtual nodes' number than before."""
    moves: tuple[Move, ...]
    """The largest first."""
    moved: float
    between_survivors: float
    """Of `moved`, between members of both rings."""
    least: float
    """What has to move, by any way of assigning keys, for each agent to have as many as it has now."""

    @property
    def overhead(self) -> float:
        """`moved` in multiples of `least`; 1 where nothing moves that need not."""
        return self.moved / self.least if self.least else 1.0


def key_shares(ring: Ring) -> Shares:
    """The share of all keys that each of ``ring.agents`` owns."""
    marks = ring.marks()
    return np.bincount(marks.owners, _arcs(marks.points), len(ring.agents)).astype(np.float64, copy=False)


def fair_shares(ring: Ring) -> Shares:
    """The share of all keys that each of ``ring.agents`` is to have, by its weight."""
    return np.array([ring.share(agent) for agent in ring.agents])


def spread(shares: Shares, fair: Shares) -> Spread:
    """How evenly `shares` (of one or more agents, their sum 1) are spread, next to those that are `fair`."""
    relative = shares / fair
    return Spread(
        float(relative.max()),
        float(np.sqrt(np.mean((shares - fair) ** 2))),
        float(np.sqrt(np.mean((relative - 1) ** 2))),
    )


def plan(before: Ring, after: Ring) -> Plan:
    """What becomes of the keys of `before` in `after`.  Where either has no agents, no key moves."""
    had = {agent.name: agent for agent in before.agents}
    has = {agent.name: agent for agent in after.agents}
    moves = _moves(before, after) if had and has else []
    lost = dict.fromkeys(had.keys() | has.keys(), 0.0)
    for move in moves:
        lost[move.origin] += move.share
        lost[move.target] -= move.share
    return Plan(
        joined=tuple(name for name in has if name not in had),
        left=tuple(name for name in had if name not in has),
        reweighted=tuple(name for name in has if name in had and has[name].weight != had[name].weight),
        moves=tuple(moves),
        moved=sum((move.share for move in moves), 0.0),
        between_survivors=sum((move.share for move in moves if move.origin in has and move.target in had), 0.0),
        least=sum((share for share in lost.values() if share > 0), 0.0),
    )


def _moves(before: Ring, after: Ring) -> list[Move]:
    """Between each two points, of whichever ring, there is one owner before and one after."""
    points = np.sort(np.concatenate([before.marks().points, after.marks().points]))
    origins, targets = _owners(before, points), _owners(after, points)
    names = sorted({agent.name for ring in (before, after) for agent in ring.agents})
    number = {name: at for at, name in enumerate(names)}
    origins = np.array([number[agent.name] for agent in before.agents]).take(origins)
    targets = np.array([number[agent.name] for agent in after.agents]).take(targets)
    moving = origins != targets
    pairs, which = np.unique(origins[moving] * len(names) + targets[moving], return_inverse=True)
    shares = np.bincount(which, _arcs(points)[moving], len(pairs))
    moves = [
        Move(names[pair // len(names)], names[pair % len(names)], share)
        for pair, share in zip(pairs.tolist(), shares.tolist(), strict=True)
    ]
    return sorted(moves, key=lambda move: (-move.share, move.origin, move.target))


def _owners(ring: Ring, positions: Points) -> npt.NDArray[np.int64]:
    """Of keys at `positions`, as numbers among ``ring.agents``."""
    marks = ring.marks()
    at = np.searchsorted(marks.points, positions)
    at[at == len(marks.points)] = 0
    return marks.owners.take(at).astype(np.int64)


def _arcs(points: Points) -> Shares:
    """How much of the circle lies before each of `points`, as far as the one before it."""
    return (points - np.roll(points, 1)) / _CIRCLE if len(points) > 1 else np.ones(len(points))
