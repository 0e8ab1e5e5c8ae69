"""A consistent-hash ring: virtual nodes on the unsigned 64-bit circle, read clockwise.

Karger et al., "Consistent Hashing and Random Trees" (STOC 1997).  An agent's points depend on the agent alone: they
are the first so many of its own sequence, so many as its weight says.  A ring over some agents is therefore the ring
over all of them with the others' points left out, and no key ever moves between two agents that stay as they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from math import ceil

import numpy as np
from xxhash import xxh3_64_intdigest

from gateway.routing.agent import Agent
from gateway.routing.circle import Circle
from gateway.routing.points import Marks, points_of

DEFAULT_POINTS = 1024
"""Virtual nodes of an agent whose weight is 1; others have as many in proportion, at least one."""
MIN_POINTS = 1024
"""Of a ring of `DEFAULT_POINTS` or more, however few and light its agents are."""

_LITTLE = 1 / 16
"""The share of a ring's points up to which splicing them beats sorting all, and sorting them beats filtering all."""


class Ring:
    """An immutable ring over `agents`; the same agents give the same ring, whatever their order.

    Args:
        agents: with names of their own.
        points: virtual nodes of an agent whose weight is 1.  Where the weights of all come to less than 1, everybody's
            are multiplied by the smallest power of two that makes it `points`, or `MIN_POINTS` if that is less.

    """

    __slots__ = ("_circle", "_counts", "_free", "_slot_of", "_slots", "_total", "agents", "points")

    def __init__(self, agents: Iterable[Agent], points: int = DEFAULT_POINTS) -> None:
        self._seat_all(agents, points)
        counts = np.array(self._counts, np.int64) * self._factor()
        marks = points_of([agent.name for agent in self.agents], counts)
        self._circle = Circle(marks.sorted())

    def _seat_all(self, agents: Iterable[Agent], points: int) -> None:
        self.agents = tuple(sorted(agents, key=lambda agent: agent.name))
        """By name."""
        self.points = points
        self._slots: list[Agent | None] = list(self.agents)
        """An agent keeps its slot while it is a member, so that what is written on the circle stays true."""
        self._slot_of: Mapping[str, int] = {agent.name: slot for slot, agent in enumerate(self.agents)}
        self._free: tuple[int, ...] = ()
        """Slots without an agent."""
        self._counts = [self._count(agent) for agent in self.agents]
        """By slot, the virtual nodes before they are multiplied; 0 in one without an agent."""
        self._total = sum(self._counts)

    def __len__(self) -> int:
        """How many points there are."""
        return len(self._circle)

    @property
    def weight(self) -> float:
        """The weight of all agents."""
        return self._total / self.points

    def _count(self, agent: Agent) -> int:
        # Rounded up: where weights come to 1, the points come to `points`.
        return max(1, ceil(self.points * agent.weight))

    def _factor(self) -> int:
        """By how much everybody's virtual nodes are multiplied."""
        least = min(self.points, MIN_POINTS)
        return 1 << (-(-least // self._total) - 1).bit_length() if self._total else 1

    def share(self, agent: Agent) -> float:
        """The part of the virtual nodes that is `agent`'s, 0 to 1: its weight in all weights, in whole points."""
        count = self._count_of(agent.name)
        return count / self._total if count else 0.0

    def marks(self) -> Marks:
        """Its points in their order, each with the number of its owner among `agents`."""
        numbers = np.zeros(len(self._slots), np.uint32)
        numbers[[self._slot_of[agent.name] for agent in self.agents]] = np.arange(len(self.agents))
        marks = self._circle.marks
        return Marks(marks.points, numbers.take(marks.owners))

    def owner(self, key: bytes) -> Agent:
        """The agent whose point is the first at or after `key`'s hash.

        Raises:
            LookupError: the ring is empty.

        """
        circle = self._circle
        owners = circle.owners
        if not owners:
            raise LookupError("the ring is empty")
        at = circle.at(xxh3_64_intdigest(key))
        return self._slots[owners[at if at < len(owners) else 0]]  # type: ignore[return-value]

    def walk(self, key: bytes) -> Iterator[Agent]:
        """Every agent once, clockwise from `key`'s hash: the owner, then the next choices for a retry."""
        owners, slots, members = self._circle.owners, self._slots, len(self.agents)
        start = self._circle.at(xxh3_64_intdigest(key))
        seen: set[int] = set()
        for step in range(start - len(owners), start):
            slot = owners[step]
            if slot not in seen:
                seen.add(slot)
                yield slots[slot]  # type: ignore[misc]
                if len(seen) == members:
                    return

    def changed(self, upserted: Iterable[Agent] = (), removed: Iterable[str] = ()) -> Ring:
        """The ring after `removed` have left it and `upserted` have joined, or replaced those of their name.

        It is the ring that its agents make, however it came about, and costs a copy of this one rather than a sort
        while little changes.  This one stays as it is.

        Args:
            upserted: agents that are members now; of two with one name, the last.
            removed: names; those that are no members, or are upserted, are passed over.

        """
        now = {agent.name: agent for agent in upserted}
        gone = {name for name in removed if name in self._slot_of} - now.keys()
        now = {name: agent for name, agent in now.items() if self._differs(agent)}
        if not now and not gone:
            return self
        after = Ring((), self.points)
        after.agents = _with(self.agents, now, gone)
        after.points = self.points
        after._seat(self, now, gone)
        circle = after._spliced(self, sorted(now.keys() | gone))
        if circle is not None:
            after._circle = circle
            return after
        return Ring(after.agents, self.points) if now else self.only({agent.name for agent in after.agents})

    def only(self, names: Container[str]) -> Ring:
        """The ring of those of its agents that are among `names`: a filter, where many are, and no sort."""
        after = Ring((), self.points)
        after._seat_all((agent for agent in self.agents if agent.name in names), self.points)
        if after._factor() != self._factor() or after._total <= _LITTLE * self._total:
            return Ring(after.agents, self.points)
        nobody = len(after.agents)
        slots = np.full(len(self._slots), nobody, np.uint32)
        slots[[self._slot_of[agent.name] for agent in after.agents]] = np.arange(nobody)
        marks = self._circle.marks
        owners = slots.take(marks.owners)
        stay = owners != nobody
        after._circle = Circle(Marks(marks.points[stay], owners[stay]))
        return after

    def _differs(self, agent: Agent) -> bool:
        slot = self._slot_of.get(agent.name)
        return slot is None or self._slots[slot] != agent

    def _count_of(self, name: str) -> int:
        slot = self._slot_of.get(name)
        return 0 if slot is None else self._counts[slot]

    def _seat(self, before: Ring, now: Mapping[str, Agent], gone: Set[str]) -> None:
        """Give each agent a slot: those that stay the one they had, those that join one that is free."""
        slots, counts, slot_of, free = before._slots[:], before._counts[:], dict(before._slot_of), list(before._free)
        for name in gone:
            slot = slot_of.pop(name)
            slots[slot], counts[slot] = None, 0
            free.append(slot)
        for name, agent in now.items():
            if name not in slot_of:
                if not free:
                    free.append(len(slots))
                    slots.append(None)
                    counts.append(0)
                slot_of[name] = free.pop()
            slot = slot_of[name]
            slots[slot], counts[slot] = agent, self._count(agent)
        self._slots, self._counts, self._slot_of, self._free = slots, counts, slot_of, tuple(free)
        self._total = sum(counts)

    def _spliced(self, before: Ring, names: Sequence[str]) -> Circle | None:
        """The circle of `before` with what `names` have lost and won; ``None`` where it is better made anew."""
        had, has = [before._count_of(name) for name in names], [self._count_of(name) for name in names]
        if had == has:
            return before._circle
        factor = self._factor()
        moved = sum(abs(new - old) for new, old in zip(has, had, strict=True))
        if factor != before._factor() or moved > _LITTLE * before._total:
            return None
        lost = _tails(names, had, has, factor, before._slot_of)
        won = _tails(names, has, had, factor, self._slot_of)
        return before._circle.changed(lost, won)


def _with(agents: Sequence[Agent], now: Mapping[str, Agent], gone: Set[str]) -> tuple[Agent, ...]:
    members = [agent for agent in agents if agent.name not in gone] if gone else list(agents)
    for name, agent in now.items():
        at = bisect_left(members, name, key=lambda member: member.name)
        there = at < len(members) and members[at].name == name
        members[at : at + there] = [agent]
    return tuple(members)


def _tails(
    names: Sequence[str], ends: Sequence[int], starts: Sequence[int], factor: int, slots: Mapping[str, int]
) -> Marks:
    """Of each of `names` the points from its start to its end, where there are any."""
    points, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint32)]
    for name, end, start in zip(names, ends, starts, strict=True):
        if end > start:
            points.append(points_of([name], np.array([end * factor])).points[start * factor :])
            owners.append(np.full((end - start) * factor, slots[name], np.uint32))
    return Marks(np.concatenate(points), np.concatenate(owners))
