"""Prometheus metrics: plain numbers on the request's way, text only when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.handoff import Handoff, Outcome
from gateway.telemetry.exposition import END, pieces
from gateway.telemetry.families import Histograms, RunningCounter
from gateway.telemetry.principals import PrincipalGroup, Principals

GATEWAY_BUCKETS_S: Final = (
    *(0.00005, 0.000075, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075),
    *(0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25),
)
HANDOFF_BUCKETS_S: Final = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0),
)
PHASE_BUCKETS_S: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
PHASES: Final = ("receive", "decide", "connect", "upstream-first-byte", "relay")
MAX_HANDOFF_SERIES: Final = 30_000
"""Label sets of handoffs by capability, agent, policy and outcome; what comes after is counted under ``other``."""
MAX_SERIES: Final = 1_000
"""Label sets of any other family."""

_UNKNOWN: Final = frozenset({"capability-unknown", "no-policy-allows", "malformed-packet"})
"""Refusals whose capability is the caller's invention and so no label."""


class Metrics(Collector):
    """Every number that the gateway exports; see docs/metrics.md."""

    def __init__(
        self, principal_group: PrincipalGroup = PrincipalGroup.NAMESPACE, clock: Callable[[], float] = monotonic
    ) -> None:
        """Nothing is counted yet.

        Args:
            principal_group: by what callers are grouped.
            clock: seconds, by which label sets are forgotten that nothing happens to.

        """
        self.registry = CollectorRegistry(auto_describe=False)
        """Of what others count."""
        self._clock = clock
        self._principals = Principals(principal_group)
        self._handoffs = RunningCounter(
            "phoenixflight_handoffs",
            "Handoffs by capability, agent, policy and outcome.",
            ("capability", "agent", "policy", "outcome"),
            MAX_HANDOFF_SERIES,
            keeps_last=True,
        )
        self._refusals = RunningCounter(
            "phoenixflight_refusals",
            "Handoffs that did not complete, by reason and policy.",
            ("policy", "reason"),
            MAX_SERIES,
            keeps_last=True,
        )
        self._by_principal = RunningCounter(
            "phoenixflight_principal_handoffs",
            "Handoffs by the caller's group and outcome.",
            ("principal_group", "outcome"),
            MAX_SERIES,
            keeps_last=True,
        )
        self._refused_principals = RunningCounter(
            "phoenixflight_principal_refusals",
            "Handoffs that did not complete, by the caller's group and reason.",
            ("principal_group", "reason"),
            MAX_SERIES,
            keeps_last=True,
        )
        self._shadow = RunningCounter(
            "phoenixflight_shadow_changes",
            "Handoffs that would have gone otherwise with the shadow policies enforced.",
            ("capability", "change"),
            MAX_SERIES,
        )
        self._durations = Histograms(
            "phoenixflight_handoff_duration_seconds",
            "A completed handoff, from its head's arrival to its last byte.",
            "capability",
            HANDOFF_BUCKETS_S,
            MAX_SERIES,
        )
        self._owns = Histograms(
            "phoenixflight_gateway_duration_seconds",
            "The gateway's own work before a request is on its way or refused.",
            "",
            GATEWAY_BUCKETS_S,
            1,
            ("",),
        )
        self._phases = Histograms(
            "phoenixflight_phase_duration_seconds",
            "The phases of a handoff, each that came to its end.",
            "phase",
            PHASE_BUCKETS_S,
            len(PHASES),
            PHASES,
        )
        self._own = self._owns.of("")
        receive, decide, connect, first_byte, relay = (self._phases.of(phase) for phase in PHASES)
        self._receive = receive
        self._decide = decide
        self._connect = connect
        self._first_byte = first_byte
        self._relay = relay
        self._opened: dict[str, int] = {}
        self._closed: dict[str, int] = {}
        self._handshakes: dict[tuple[str, str], int] = {}
        self._abuse: dict[tuple[str, str], int] = {}
        self._judged_again_s = 0.0
        self.defects = 0
        self.reload_failures = 0
        self.last_reload_ok = True
        self.restart_needed: Sequence[str] = ()
        """Settings that come into force when the gateway starts again."""
        self.revision = ""
        self.ready: Callable[[], bool] = lambda: False
        self.in_flight: Callable[[], int] = lambda: 0
        self.tasks: Callable[[], int] = lambda: 0
        self.certificate_lives: Callable[[], Mapping[tuple[str, str], tuple[float, float]]] = dict
        """Begin and end, seconds since the epoch, by kind (``own`` or ``crl``) and name."""
        self.lines_dropped: Callable[[], dict[str, int]] = dict
        """By what the lines are of."""
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def handoff(self, handoff: Handoff, gateway_s: float, duration_s: float, sampled: bool = False) -> None:
        """Count one handoff; one that is `sampled` has a trace that tells more."""
        outcome, reason = handoff.outcome._value_, handoff.reason
        capability = "" if reason in _UNKNOWN else handoff.capability
        self._handoffs.add((capability, handoff.agent, handoff.policy, outcome))
        group = self._principals.of(handoff.caller)
        self._by_principal.add((group, outcome))
        if reason:
            self._refusals.add((handoff.policy, reason))
            self._refused_principals.add((group, reason))
        if handoff.shadow:
            self._shadow.add((capability, handoff.shadow))
        trace_id, at = "", 0.0
        if sampled:
            trace_id, at = handoff.trace_id, handoff.time.timestamp() + duration_s
        self._own.observe(gateway_s, trace_id, at)
        if handoff.outcome is Outcome.COMPLETED:
            self._durations.of(capability).observe(duration_s, trace_id, at)
        self._receive.observe(handoff.waited_ms / 1000, trace_id, at)
        self._decide.observe(gateway_s, trace_id, at)
        sent_ms, answered_ms, failed = handoff.sent_ms, handoff.answered_ms, handoff.failed
        if sent_ms:
            since_ms = failed[-1].ended_ms if failed else handoff.gateway_ms
            self._connect.observe((sent_ms - since_ms) / 1000, trace_id, at)
        if answered_ms:
            self._first_byte.observe((answered_ms - sent_ms) / 1000, trace_id, at)
            self._relay.observe((handoff.duration_ms - answered_ms) / 1000, trace_id, at)

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

    def pieces(self, *, openmetrics: bool = False) -> Iterator[bytes]:
        """What Prometheus scrapes, piece by piece."""
        now = self._clock()
        for counter in (
            self._handoffs,
            self._refusals,
            self._by_principal,
            self._refused_principals,
            self._shadow,
        ):
            for piece in counter.pieces(now, openmetrics):
                yield piece.encode()
        for histograms in (self._durations, self._owns, self._phases):
            for piece in histograms.pieces(now, openmetrics):
                yield piece.encode()
        for metric in self.registry.collect():
            for piece in pieces(metric, openmetrics=openmetrics):
                yield piece.encode()
        if openmetrics:
            yield END.encode()

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """All of it at once."""
        return b"".join(self.pieces(openmetrics=openmetrics))

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: what is of closed label sets, made from the numbers as they stand."""
        yield _gauge("phoenixflight_ready", "1 when it is ready, as /readyz has it.", int(self.ready()))
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
        yield _gauge(
            "phoenixflight_restart_needed",
            "Settings of gateway.yaml that were changed and come into force when the gateway starts again.",
            len(self.restart_needed),
        )
        yield _counter(
            "phoenixflight_lines_dropped",
            "Lines lost to a writer that could not keep up, of the access log.",
            ("file",),
            {(name,): count for name, count in self.lines_dropped().items()},
        )
        lives = self.certificate_lives()
        for at, what in enumerate(("start", "end")):
            moments = GaugeMetricFamily(
                f"phoenixflight_certificate_{what}_timestamp_seconds",
                f"The {what} of the gateway's own certificate, and of each revocation list.",
                labels=["kind", "name"],
            )
            for key, life in lives.items():
                moments.add_metric(list(key), life[at])
            yield moments
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
