"""Metrics of the flight recorder, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Recording(Protocol):
    """Whoever records."""

    records: int
    trouble: str

    @property
    def lost(self) -> int: ...
    @property
    def unsynced(self) -> int: ...
    @property
    def bytes_kept(self) -> int: ...
    @property
    def segments(self) -> int: ...


class RecorderMetrics(Collector):
    """What docs/metrics.md tells of the recorder."""

    def __init__(self, recorder: Recording) -> None:
        self._recorder = recorder

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        recorder = self._recorder
        for name, text, count in (
            ("records", "Records that were written.", recorder.records),
            ("lost_records", "Records that could not be kept.", recorder.lost),
        ):
            yield CounterMetricFamily(f"phoenixflight_recorder_{name}", text, value=count)
        for name, text, value in (
            ("trouble", "1 while records cannot be kept, or only just.", int(bool(recorder.trouble))),
            ("unsynced_records", "Records that the disk does not have for certain.", recorder.unsynced),
            ("bytes", "Of all files of this process's chain.", recorder.bytes_kept),
            ("segments", "Files of this process's chain.", recorder.segments),
        ):
            yield GaugeMetricFamily(f"phoenixflight_recorder_{name}", text, value=value)
