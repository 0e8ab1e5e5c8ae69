"""Prometheus metrics: plain numbers on the request's way, families only when they are scraped."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.handoff import Handoff, Outcome

GATEWAY_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
HANDOFF_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
MAX_SERIES = 10_000
"""Label sets of one family; what comes after is counted under ``other``."""

_UNKNOWN = frozenset({"capability-unknown", "no-policy-allows", "malformed-packet"})
"""Refusals whose capability is the caller's invention and so no label."""


class Histogram:
    """Observations in seconds, in cumulative buckets when read."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound."""
        running = 0
        result: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            result.append((bound, running))
        return result


class Metrics(Collector):
    """Every number that the gateway exports; see docs/metrics.md."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._handoffs: dict[tuple[str, str, str, str], int] = {}
        self._refusals: dict[tuple[str, str], int] = {}
        self._durations: dict[str, Histogram] = {}
        self._own = Histogram(GATEWAY_BUCKETS_S)
        self._opened: dict[str, int] = {}
        self._closed: dict[str, int] = {}
        self._handshakes: dict[tuple[str, str], int] = {}
        self._abuse: dict[tuple[str, str], int] = {}
        self._shadow: dict[tuple[str, str], int] = {}
        self._judged_again_s = 0.0
        self.defects = 0
        self.reload_failures = 0
        self.last_reload_ok = True
        self.revision = ""
        self.in_flight: Callable[[], int] = lambda: 0
        self.tasks: Callable[[], int] = lambda: 0
        self.certificate_ends: Callable[[], Mapping[tuple[str, str], float]] = dict
        """Seconds since the epoch, by kind (``own`` or ``crl``) and name."""
        self.lines_dropped: Callable[[], dict[str, int]] = dict
        """By what the lines are of."""
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def handoff(self, handoff: Handoff, gateway_s: float, duration_s: float) -> None:
        """Count one handoff."""
        capability = "" if handoff.reason in _UNKNOWN else handoff.capability
        key = (capability, handoff.agent, handoff.policy, handoff.outcome.value)
        handoffs = self._handoffs
        if key not in handoffs and len(handoffs) >= MAX_SERIES:
            key = ("other", "other", "other", handoff.outcome.value)
        handoffs[key] = handoffs.get(key, 0) + 1
        if handoff.reason:
            refused = (handoff.reason, handoff.policy)
            self._refusals[refused] = self._refusals.get(refused, 0) + 1
        if handoff.shadow:
            change = (capability, handoff.shadow)
            if change in self._shadow or len(self._shadow) < MAX_SERIES:
                self._shadow[change] = self._shadow.get(change, 0) + 1
        self._own.observe(gateway_s)
        if handoff.outcome is Outcome.COMPLETED:
            durations = self._durations.get(capability)
            if durations is None:
                if len(self._durations) >= MAX_SERIES:
                    capability = "other"
                durations = self._durations.setdefault(capability, Histogram(HANDOFF_BUCKETS_S))
            durations.observe(duration_s)

    def connection_opened(self, listener: str) -> None:
        """Count an accepted connection."""
        self._opened[listener] = self._opened.get(listener, 0) + 1

    def connection_closed(self, listener: str) -> None:
        """Count a connection that ended."""
        self._closed[listener] = self._closed.get(listener, 0) + 1

    def handshake_failed(self, listener: str, reason: str) -> None:
        """Count a caller that was not let in."""
        key = (listener, reason)
        self._handshakes[key] = self._handshakes.get(key, 0) + 1

    def abuse(self, listener: str, reason: str) -> None:
        """Count a connection that broke its protocol, or a request over a limit of it."""
        key = (listener, reason)
        self._abuse[key] = self._abuse.get(key, 0) + 1

    def judged_again(self, seconds: float) -> None:
        """Everything under way was judged by a new snapshot, so long after it came into force."""
        self._judged_again_s = seconds

    def exposition(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        yield _counter(
            "phoenixflight_handoffs",
            "Handoffs by capability, agent, policy and outcome.",
            ("capability", "agent", "policy", "outcome"),
            self._handoffs,
        )
        yield _counter(
            "phoenixflight_refusals",
            "Handoffs that did not complete, by reason and policy.",
            ("reason", "policy"),
            self._refusals,
        )
        durations = HistogramMetricFamily(
            "phoenixflight_handoff_duration_seconds",
            "A completed handoff, from its head's arrival to its last byte.",
            labels=["capability"],
        )
        for capability, histogram in list(self._durations.items()):
            durations.add_metric([capability], histogram.buckets(), histogram.total)
        yield durations
        own = HistogramMetricFamily(
            "phoenixflight_gateway_duration_seconds",
            "The gateway's own work before a request is on its way or refused.",
        )
        own.add_metric([], self._own.buckets(), self._own.total)
        yield own
        yield _gauge("phoenixflight_handoffs_in_flight", "Handoffs under way.", self.in_flight())
        yield _gauge("phoenixflight_tasks", "Tasks of the event loop; none belongs to a request alone.", self.tasks())
        open_connections = GaugeMetricFamily(
            "phoenixflight_connections", "Open connections from callers.", labels=["listener"]
        )
        for listener, opened in list(self._opened.items()):
            open_connections.add_metric([listener], opened - self._closed.get(listener, 0))
        yield open_connections
        yield _counter(
            "phoenixflight_connections_opened",
            "Connections accepted from callers.",
            ("listener",),
            {(name,): count for name, count in self._opened.items()},
        )
        yield _counter(
            "phoenixflight_handshake_failures",
            "Callers that were not let in, by reason.",
            ("listener", "reason"),
            self._handshakes,
        )
        yield _counter(
            "phoenixflight_abuse",
            "Callers that broke HTTP or asked too much of it, by what they did.",
            ("listener", "reason"),
            self._abuse,
        )
        yield _counter(
            "phoenixflight_shadow_changes",
            "Handoffs that would have gone otherwise with the shadow policies enforced.",
            ("capability", "change"),
            self._shadow,
        )
        yield _gauge(
            "phoenixflight_reauthorization_seconds",
            "From the newest revision's coming into force until every open exchange was judged by it.",
            self._judged_again_s,
        )
        yield _counter("phoenixflight_defects", "Failures of the gateway itself.", (), {(): self.defects})
        yield _counter("phoenixflight_reload_failures", "Reloads that were refused.", (), {(): self.reload_failures})
        yield _gauge(
            "phoenixflight_last_reload_successful",
            "1 when the files on disk are what is in force.",
            int(self.last_reload_ok),
        )
        yield _counter(
            "phoenixflight_lines_dropped",
            "Lines lost to a writer that could not keep up, of the access log.",
            ("file",),
            {(name,): count for name, count in self.lines_dropped().items()},
        )
        ends = GaugeMetricFamily(
            "phoenixflight_certificate_end_timestamp_seconds",
            "When the gateway's own certificate ends, and each revocation list.",
            labels=["kind", "name"],
        )
        for key, end in self.certificate_ends().items():
            ends.add_metric(list(key), end)
        yield ends
        info = GaugeMetricFamily("phoenixflight_revision_info", "The revision in force.", labels=["revision"])
        info.add_metric([self.revision], 1)
        yield info


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=list(labels))
    for key, count in list(values.items()):
        family.add_metric(list(key), count)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
