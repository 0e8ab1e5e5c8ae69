"""Metrics of what is revoked, read when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class RevocationMetrics(Collector):
    """What docs/metrics.md tells of revocations; what they refuse is counted with all refusals."""

    def __init__(self, counts: Callable[[], Mapping[str, int]], age_s: Callable[[], float]) -> None:
        """Read from these.

        Args:
            counts: what is revoked, by kind.
            age_s: how long ago other replicas were last heard.

        """
        self._counts = counts
        self._age_s = age_s

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        revoked = GaugeMetricFamily("phoenixflight_revocations", "What is revoked now, by its kind.", labels=["kind"])
        for kind, count in self._counts().items():
            revoked.add_metric([kind], count)
        yield revoked
        yield GaugeMetricFamily(
            "phoenixflight_revocations_sync_age_seconds",
            "How long ago what other replicas have revoked was last read in Redis; 0 without Redis.",
            value=self._age_s(),
        )
