"""Rings under churn and load, simulated: the same seed gives the same numbers.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from gateway.routing.agent import Agent
from gateway.routing.load import DEFAULT_C, Load, pick
from gateway.routing.plan import Shares, Spread, fair_shares, key_shares, plan, spread
from gateway.routing.ring import Ring

PACKETS_PER_AGENT = 20
"""Under way at once: 1.25 times as many is a whole number, so that the bound is seen without its rounding."""
_TURNOVERS = 3
"""How often each packet is replaced before the load is looked at."""


@dataclass(frozen=True, slots=True)
class Step:
    """One member that joins or leaves, and the keys that move."""

    joins: bool
    agent: str
    members: int
    """With the one that joins or leaves."""
    moved: float
    """Share of all keys; so are the next two."""
    ideal: float
    """The fair share of the one that joins or leaves."""
    between_survivors: float
    overhead: float
    """`moved` in multiples of what has to move."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The packets under way at each agent, after many have come and gone."""

    shares: Shares
    """By agent."""
    spread: Spread
    at_owner: float
    """The share of packets that went to the owner of their key."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a simulated ring did."""

    agents: int
    points: int
    """Of the ring."""
    packets: int
    """Under way."""
    keys: Spread
    steps: tuple[Step, ...]
    alone: Occupancy
    """With every packet at the owner of its key."""
    bounded: Occupancy

    @property
    def moved_to_ideal(self) -> float:
        """The keys that all steps moved, in multiples of what they ideally move."""
        return sum(step.moved for step in self.steps) / sum(step.ideal for step in self.steps)


def simulate(count: int, points: int, joins: int, leaves: int, rng: Random) -> Run:
    """A ring of `count` agents that weigh the same: its keys, its churn, its load."""
    ring = Ring(agents(count), points)
    packets = count * PACKETS_PER_AGENT
    return Run(
        count,
        len(ring),
        packets,
        spread(key_shares(ring), fair_shares(ring)),
        tuple(churn(ring, joins, leaves, rng)),
        unbounded(ring, rng, packets),
        bounded(ring, rng, packets),
    )


def agents(count: int, first: int = 0) -> list[Agent]:
    """So many that weigh the same."""
    return [Agent(f"agent-{number:05d}", "127.0.0.1", 80, frozenset()) for number in range(first, first + count)]


def churn(ring: Ring, joins: int, leaves: int, rng: Random) -> list[Step]:
    """What moves when `joins` new agents join and `leaves` members leave, in a random order, one at a time.

    The last member stays.
    """
    schedule = [True] * joins + [False] * leaves
    rng.shuffle(schedule)
    newcomers = iter(agents(joins, len(ring.agents)))
    steps = []
    for joining in schedule:
        if joining:
            agent = next(newcomers)
            after = larger = ring.changed([agent])
        elif len(ring.agents) > 1:
            agent = rng.choice(ring.agents)
            larger, after = ring, ring.changed(removed=[agent.name])
        else:
            continue
        change = plan(ring, after)
        ideal = larger.share(agent)
        steps.append(
            Step(
                joining,
                agent.name,
                len(larger.agents),
                change.moved,
                ideal,
                change.between_survivors,
                change.overhead,
            )
        )
        ring = after
    return steps


def bounded(ring: Ring, rng: Random, packets: int, c: float = DEFAULT_C) -> Occupancy:
    """The load with `packets` under way, each of a conversation of its own, by bounded load."""
    return _occupied(ring, rng, packets, lambda key, load: pick(ring, key, load, c))


def unbounded(ring: Ring, rng: Random, packets: int) -> Occupancy:
    """The same by the ring alone: every packet goes to its owner."""
    return _occupied(ring, rng, packets, lambda key, load: ring.owner(key))


def _occupied(ring: Ring, rng: Random, packets: int, choose: Callable[[bytes, Load], Agent]) -> Occupancy:
    load = Load()
    under_way: list[str] = []
    at_owner = 0
    total = packets * (1 + _TURNOVERS)
    for _ in range(total):
        place = len(under_way)
        if place == packets:
            place = rng.randrange(packets)
            load.end(under_way[place])
        key = rng.getrandbits(64).to_bytes(8, "big")
        agent = choose(key, load)
        at_owner += agent is ring.owner(key)
        load.begin(agent.name)
        under_way[place : place + 1] = [agent.name]
    shares = np.array([load.of(agent.name) for agent in ring.agents]) / packets
    return Occupancy(shares, spread(shares, fair_shares(ring)), at_owner / total)
