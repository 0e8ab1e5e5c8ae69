"""Metrics of members, rings and conversations, read when they are scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import sqrt
from operator import itemgetter
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.decision import Snapshot
from gateway.leases import Fate
from gateway.membership.health import Reason
from gateway.routes import Admitted
from gateway.routing import AgentState

MAX_CAPABILITIES = 1_000
"""Of which members are counted; those beyond it, in the order of the alphabet, are left out."""
_SAMPLE = [b"%d" % number for number in range(1024)]
"""Keys that stand for all when it is told how many a change has moved."""


class Readings(NamedTuple):
    """Where the numbers come from."""

    snapshot: Callable[[], Snapshot]
    fates: Callable[[], Mapping[Fate, int]]
    """Of conversations' packets."""
    migrations: Callable[[], Mapping[str, int]]
    """Of conversations' contexts, by outcome."""
    ejections: Callable[[], Mapping[Reason, int]]
    registrations: Callable[[], Mapping[tuple[str, str], int]]
    """By method and outcome."""
    problems: Callable[[], int]
    """Things that are no members, or not as they should be."""
    watches: Callable[[], Mapping[str, tuple[str, float]]]
    """State and age in seconds of what is watched for members, by name."""


class MembershipMetrics(Collector):
    """What docs/metrics.md tells of members; `turned` is told of each change."""

    def __init__(self, readings: Readings) -> None:
        self._from = readings
        self._changes = 0
        self._build_s = 0.0
        self._moved: dict[str, float] = {}

    def turned(self, before: Snapshot, after: Snapshot, build_s: float) -> None:
        """Members have changed, from one snapshot to the other.

        Args:
            before: what was in force.
            after: what is.
            build_s: how long it took to make `after`.

        """
        self._changes += 1
        self._build_s = build_s
        was = before.routes.widest()
        self._moved = {
            label: self._moved.get(label, 0.0) + (moved(was[label], admitted) if label in was else 0.0)
            for label, admitted in _first(after.routes.widest())
        }

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        yield from self._members()
        yield from self._rings()
        yield _counted(
            "phoenixflight_conversation_packets",
            "Packets of conversations, by what became of the lease.",
            ("fate",),
            {(fate.value,): count for fate, count in self._from.fates().items()},
        )
        yield _counted(
            "phoenixflight_migrations",
            "Contexts of conversations that left a draining agent, by what came of carrying them over.",
            ("outcome",),
            {(outcome,): count for outcome, count in self._from.migrations().items()},
        )
        yield _counted(
            "phoenixflight_ejections",
            "Agents that were ejected, by reason.",
            ("reason",),
            {(reason.value,): count for reason, count in self._from.ejections().items()},
        )
        yield _counted(
            "phoenixflight_registrations",
            "Requests about registrations, by method and outcome.",
            ("method", "outcome"),
            self._from.registrations(),
        )
        watches = GaugeMetricFamily(
            "phoenixflight_watch_age_seconds",
            "Since something was last heard of what is watched for members, by state.",
            labels=["watch", "state"],
        )
        for name, (state, age_s) in self._from.watches().items():
            watches.add_metric([name, state], age_s)
        yield watches
        yield GaugeMetricFamily(
            "phoenixflight_member_problems",
            "Things that are no members, or not as they should be; /status tells which, and why.",
            value=self._from.problems(),
        )

    def _members(self) -> Iterable[Metric]:
        agents = self._from.snapshot().agents
        members = GaugeMetricFamily("phoenixflight_members", "Agents by state.", labels=["state"])
        states = Counter(agent.state for agent in agents)
        for each in AgentState:
            members.add_metric([each.value], states[each])
        yield members
        capable = GaugeMetricFamily(
            "phoenixflight_capability_members", "Agents by capability and state.", labels=["capability", "state"]
        )
        counts: dict[AgentState, Counter[str]] = {each: Counter() for each in AgentState}
        for agent in agents:
            counts[agent.state].update(agent.capabilities)
        for name in sorted(set().union(*counts.values()))[:MAX_CAPABILITIES]:
            for each, of in counts.items():
                if name in of:
                    capable.add_metric([name, each.value], of[name])
        yield capable

    def _rings(self) -> Iterable[Metric]:
        points = GaugeMetricFamily("phoenixflight_ring_points", "Points on the ring.", labels=["capability"])
        variation = GaugeMetricFamily(
            "phoenixflight_ring_load_variation",
            "Coefficient of variation of what is under way at agents, in their shares.",
            labels=["capability"],
        )
        for label, admitted in _first(self._from.snapshot().routes.widest()):
            points.add_metric([label], len(admitted.ready))
            variation.add_metric([label], load_variation(admitted))
        yield points
        yield variation
        shares = CounterMetricFamily(
            "phoenixflight_ring_moved_keys",
            "Shares of all keys that changes of members have moved, summed.",
            labels=["capability"],
        )
        for label, share in list(self._moved.items()):
            shares.add_metric([label], share)
        yield shares
        yield _counted(
            "phoenixflight_member_changes", "Changes of members that came into force.", (), {(): self._changes}
        )
        yield GaugeMetricFamily(
            "phoenixflight_ring_build_seconds",
            "How long the last change of members took to build, beside the request's way.",
            value=self._build_s,
        )


def _first(routes: dict[str, Admitted]) -> list[tuple[str, Admitted]]:
    return sorted(routes.items(), key=itemgetter(0))[:MAX_CAPABILITIES]


def moved(before: Admitted, after: Admitted) -> float:
    """The share of keys, 0 to 1, whose agent is another one: a sample's."""
    if before.ready is after.ready or not (before.ready.agents and after.ready.agents):
        return 0.0
    return sum(before.ready.owner(key).name != after.ready.owner(key).name for key in _SAMPLE) / len(_SAMPLE)


def load_variation(admitted: Admitted) -> float:
    """The coefficient of variation of the packets under way at the agents that are ready, each by its share."""
    ring, load = admitted.ready, admitted.load
    if not load.total or not ring.agents:
        return 0.0
    total, counts, agents = load.total, load.counts, ring.agents
    # Of most agents nothing is known but that they have none: each of them is 1 away.
    busy = [counts[agent.name] / (total * ring.share(agent)) for agent in agents if agent.name in counts]
    return sqrt((sum((each - 1) ** 2 for each in busy) + len(agents) - len(busy)) / len(agents))


def _counted(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=list(labels))
    for key, count in list(values.items()):
        family.add_metric(list(key), count)
    return family
