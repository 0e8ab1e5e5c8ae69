"""Counters that others keep as plain numbers, read when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Reading(NamedTuple):
    """One family, and where its numbers come from."""

    name: str
    text: str
    labels: tuple[str, ...]
    read: Callable[[], Mapping[Any, int]]
    """By label values, in the order of `labels`."""


class Counters(Collector):
    """The families of `readings`."""

    def __init__(self, readings: tuple[Reading, ...]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        for name, text, labels, read in self._readings:
            family = CounterMetricFamily(name, text, labels=list(labels))
            for values, count in list(read().items()):
                family.add_metric(list(values), count)
            yield family
