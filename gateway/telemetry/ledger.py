"""Metrics of packets that are done once, read when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class LedgerMetrics(Collector):
    """What docs/metrics.md tells of the ledger."""

    def __init__(
        self, counts: Callable[[], Mapping[str, int]], entries: Callable[[], int], size: Callable[[], int]
    ) -> None:
        """Read from these.

        Args:
            counts: how often each event befell a packet.
            entries: what this process keeps in mind.
            size: bytes of it.

        """
        self._counts = counts
        self._entries = entries
        self._size = size

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        packets = CounterMetricFamily(
            "phoenixflight_ledger_packets", "Packets that are done once, by what befell them.", labels=["event"]
        )
        for event, count in self._counts().items():
            packets.add_metric([event], count)
        yield packets
        yield GaugeMetricFamily(
            "phoenixflight_ledger_entries",
            "Packets that the ledger of this process keeps in mind.",
            value=self._entries(),
        )
        yield GaugeMetricFamily("phoenixflight_ledger_bytes", "Bytes of them, about.", value=self._size())
