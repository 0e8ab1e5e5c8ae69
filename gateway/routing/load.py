"""Bounded load: no agent takes much more than its share of what is under way.  Pure.

Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA 2018; arXiv:1608.01350, 2016).  A packet
goes to its owner while that has room, else clockwise to the first agent that has; and to its owner again as soon as
there is room.  An agent has room while it has fewer packets than `c` times its share of all of them, this one included.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from gateway.routing.agent import Agent
from gateway.routing.ring import Ring

DEFAULT_C = 1.25
"""How many times its share of the packets under way an agent takes at most."""


class Load:
    """The packets under way at each agent, by name: it outlives the rings that they were picked from.

    It holds no more names than there are packets under way.
    """

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.total = 0
        """Over all agents."""

    @property
    def counts(self) -> Mapping[str, int]:
        """By name, of the agents that have any."""
        return self._counts

    def of(self, name: str) -> int:
        """How many packets are under way at the agent `name`."""
        return self._counts.get(name, 0)

    def begin(self, name: str) -> None:
        """A packet goes to `name`."""
        self._counts[name] = self._counts.get(name, 0) + 1
        self.total += 1

    def end(self, name: str) -> None:
        """A packet that went to `name` has ended.

        Raises:
            KeyError: none was under way.

        """
        left = self._counts[name] - 1
        if left:
            self._counts[name] = left
        else:
            del self._counts[name]
        self.total -= 1


def pick(ring: Ring, key: bytes, load: Load, c: float = DEFAULT_C, owner: Agent | None = None) -> Agent:
    """The first agent clockwise from `key` that has room: most often its owner.

    Args:
        ring: the agents to pick from.
        key: what the packet belongs to.
        load: what is under way at them.
        c: at least 1; with it, one of them always has room.
        owner: ``ring.owner(key)``, where that is known.

    Raises:
        LookupError: the ring is empty.

    """
    if owner is None:
        owner = ring.owner(key)
    count = load.of(owner.name)
    if not count or count < c * (load.total + 1) * ring.share(owner):
        return owner
    return pick_other(ring, key, load, (), c) or owner


def pick_other(ring: Ring, key: bytes, load: Load, tried: Container[str], c: float = DEFAULT_C) -> Agent | None:
    """The same for a packet that was at the agents named in `tried` already; ``None`` when no others are left.

    When none of the others has room, it is the first of them clockwise.
    """
    most = c * (load.total + 1)
    first = None
    for agent in ring.walk(key):
        if agent.name in tried:
            continue
        # Of whole numbers, those below ceil(x) are those below x.
        if load.of(agent.name) < most * ring.share(agent):
            return agent
        if first is None:
            first = agent
    return first
