"""Who is an outlier, and for how long it is ejected: Envoy's outlier detection.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, pstdev
from typing import Final

from gateway.membership.health.record import Record
from gateway.membership.health.spec import OutlierSpec

FAILURE_STATUSES: Final = frozenset({500, 502, 503, 504})
"""Answers that count against an agent: it is broken, or what it depends on is.

The other 5xx (501, 505, 508 and so on) speak about the request, as 4xx do.
"""

_LEAST_DISTANCE: Final = 0.05
"""A success rate no more than this below the mean is no outlier, however alike the others are."""


def ejection_s(spec: OutlierSpec, count: int) -> float:
    """How long the ejection that is an agent's `count`-th takes, in seconds."""
    return min(spec.max_ejection_s, spec.base_ejection_s * count)


def sweep(records: Iterable[Record], spec: OutlierSpec) -> list[Record]:
    """Those whose success rate since the last sweep is far below that of their peers of any capability, worst first."""
    rates: list[tuple[float, Record]] = []
    for record in records:
        good, bad = record.good - record.swept_good, record.bad - record.swept_bad
        if good or bad:
            record.swept_good, record.swept_bad = record.good, record.bad
            if good + bad >= spec.min_requests and record.ready and not record.ejected:
                rates.append((good / (good + bad), record))
    best = max((rate for rate, _ in rates), default=0.0)
    suspects = [(rate, record) for rate, record in rates if rate < best - _LEAST_DISTANCE]
    wanted = {capability for _, record in suspects for capability in record.agent.capabilities}
    peers: dict[str, list[float]] = {capability: [] for capability in wanted}
    if wanted:  # mostly nobody is suspected
        for rate, record in rates:
            for capability in wanted & record.agent.capabilities:
                peers[capability].append(rate)
    thresholds = {
        capability: min(fmean(group) - spec.deviations * pstdev(group), fmean(group) - _LEAST_DISTANCE)
        for capability, group in peers.items()
        if len(group) >= spec.min_agents
    }
    outliers = [
        (rate, record)
        for rate, record in suspects
        if any(rate < thresholds.get(capability, 0.0) for capability in record.agent.capabilities)
    ]
    outliers.sort(key=lambda each: (each[0], each[1].agent.name))
    return [record for _, record in outliers]
