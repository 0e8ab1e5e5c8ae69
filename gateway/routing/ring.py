"""A consistent-hash ring: virtual nodes on the unsigned 64-bit circle, read clockwise.

Karger et al., "Consistent Hashing and Random Trees" (STOC 1997).  An agent's points depend on the agent alone,
so a ring over some agents is the ring over all of them with the others' points left out: filtering members
never moves a key between the ones that stay.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from xxhash import xxh3_64_intdigest

from gateway.routing.agent import Agent

POINTS_PER_AGENT = 160
"""Virtual nodes of an agent whose weight is 1; others have a share in proportion, at least one."""


class Ring:
    """An immutable ring over `agents`; the same agents give the same ring, whatever their order."""

    __slots__ = ("_owners", "_points", "agents")

    def __init__(self, agents: Iterable[Agent]) -> None:
        self.agents = tuple(sorted(agents, key=lambda agent: agent.name))
        marks = sorted(
            (xxh3_64_intdigest(agent.name.encode(), seed=number), index)
            for index, agent in enumerate(self.agents)
            for number in range(max(1, round(POINTS_PER_AGENT * agent.weight)))
        )
        self._points = array("Q", [point for point, _ in marks])
        self._owners = array("L", [index for _, index in marks])

    def __len__(self) -> int:
        """How many points there are."""
        return len(self._points)

    def owner(self, key: bytes) -> Agent:
        """The agent whose point is the first at or after `key`'s hash.

        Raises:
            LookupError: the ring is empty.

        """
        if not self._points:
            raise LookupError("the ring is empty")
        at = bisect_left(self._points, xxh3_64_intdigest(key))
        return self.agents[self._owners[at if at < len(self._owners) else 0]]

    def walk(self, key: bytes) -> Iterator[Agent]:
        """Every agent once, clockwise from `key`'s hash: the owner, then the next choices for a retry."""
        owners = self._owners
        start = bisect_left(self._points, xxh3_64_intdigest(key))
        seen: set[int] = set()
        for step in range(len(owners)):
            index = owners[(start + step) % len(owners)]
            if index not in seen:
                seen.add(index)
                yield self.agents[index]
                if len(seen) == len(self.agents):
                    return
