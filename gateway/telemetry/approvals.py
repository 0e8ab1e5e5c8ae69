"""Metrics of packets that wait for an approval, read when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.approvals import Desk
from gateway.approvals.desk import WAIT_BUCKETS_S


class ApprovalMetrics(Collector):
    """What docs/metrics.md tells of approvals."""

    def __init__(self, desk: Desk, calls: Callable[[], Mapping[str, int]]) -> None:
        """Read from `desk`, and from `calls` how often the webhook was asked, by what came of it."""
        self._desk = desk
        self._calls = calls

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        desk = self._desk
        yield GaugeMetricFamily("phoenixflight_approvals_waiting", "Packets that wait for an approval.", len(desk))
        decided = CounterMetricFamily(
            "phoenixflight_approvals", "Approvals that rules asked for, by what came of it.", labels=["outcome"]
        )
        for outcome, count in desk.counts.items():
            decided.add_metric([outcome.value], count)
        yield decided
        counts = list(accumulate(desk.waits))
        buckets = [(str(most), float(count)) for most, count in zip(WAIT_BUCKETS_S, counts, strict=False)]
        waits = HistogramMetricFamily(
            "phoenixflight_approval_wait_seconds", "How long packets waited for an approval, given or not."
        )
        waits.add_metric([], [*buckets, ("+Inf", float(counts[-1]))], desk.waited_s)
        yield waits
        calls = CounterMetricFamily(
            "phoenixflight_approval_webhook",
            "Requests to the approval webhook, by what came of it.",
            labels=["outcome"],
        )
        for name, count in self._calls().items():
            calls.add_metric([name], count)
        yield calls
