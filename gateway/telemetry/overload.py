"""Metrics of overload, read when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.overload import Door, Monitor, Push

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    class Plane(Protocol):
        """Whose overload it is."""

        door: Door
        monitor: Monitor

        @property
        def pushed_back(self) -> Mapping[Push, int]:
            """How often connections were held and closed."""

        @property
        def held(self) -> int:
            """How many connections are held."""

        @property
        def refused_connections(self) -> int:
            """How many were closed at once."""


class OverloadMetrics(Collector):
    """What docs/metrics.md tells of overload."""

    def __init__(self, plane: Callable[[], Plane | None]) -> None:
        self._plane = plane

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        plane = self._plane()
        if plane is None:
            return
        shed = CounterMetricFamily(
            "phoenixflight_shed", "Requests turned away before anything was done for them.", labels=["reason"]
        )
        for entry, count in list(plane.door.shed.items()):
            shed.add_metric([entry.value], count)
        yield shed
        pushed = CounterMetricFamily(
            "phoenixflight_ignored_retry_after",
            "Connections held (not read for a while) or closed because requests went on within a retry-after.",
            labels=["push"],
        )
        for push, count in plane.pushed_back.items():
            pushed.add_metric([push.value], count)
        yield pushed
        yield CounterMetricFamily(
            "phoenixflight_connections_refused",
            "Connections closed at once, for lack of room.",
            value=plane.refused_connections,
        )
        for name, text, value in (
            ("held_connections", "Connections not read for a while.", plane.held),
            ("door_queue", "Requests that wait for their turn of the event loop.", len(plane.door.queue)),
            ("overload_level", "0 normal, 1 no keep-alive, 2 no requests, 3 no connections.", plane.monitor.level),
            ("loop_lag_seconds", "How late the event loop is, smoothed.", plane.monitor.lag_s),
            ("memory_used_ratio", "Memory used, of what there is.", plane.monitor.memory_share),
        ):
            yield GaugeMetricFamily(f"phoenixflight_{name}", text, value=value)
