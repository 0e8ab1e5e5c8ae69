"""The shares of all agents, from what was observed since the last time.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from gateway.membership.health.record import Record
from gateway.membership.health.reliability import MIN_PEERS, ramp, settle
from gateway.membership.health.spec import HealthSpec

Usual = Mapping[frozenset[str], float]
"""How long agents with just these capabilities take, in seconds; 0 where nobody knows."""


def usual(records: Iterable[Record]) -> Usual:
    """By capabilities, the median latency of their agents.

    Of several capabilities the slowest counts: an agent may be asked for that one only.
    """
    known: dict[frozenset[str], list[float]] = {}
    for record in records:
        capabilities = record.agent.capabilities
        group = known.get(capabilities)
        if group is None:
            group = known[capabilities] = []
        latency_s = record.evidence.latency_s
        if latency_s and record.since is None:
            group.append(latency_s)
    peers: dict[str, list[float]] = {}
    for capabilities, group in known.items():
        for capability in capabilities:
            peers.setdefault(capability, []).extend(group)
    medians = {capability: median(group) for capability, group in peers.items() if len(group) >= MIN_PEERS}
    return {
        capabilities: max((medians.get(capability, 0.0) for capability in capabilities), default=0.0)
        for capabilities in known
    }


def reconsider(record: Record, now: float, usual: Usual, spec: HealthSpec) -> float:
    """Bring an agent's reliability up to date; gives the share that it comes to."""
    speed = record.evidence.speed(now, usual.get(record.agent.capabilities, 0.0), spec.reliability.half_life_s)
    record.reliability = settle(record.evidence.success * speed, record.reliability)
    if record.starts_at is None:
        return record.reliability
    return ramp(record.reliability, now - record.starts_at, spec.slow_start.duration_s)
