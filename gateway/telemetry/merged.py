"""The metrics of several workers as those of one gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

_LEAST = frozenset({"phoenixflight_last_reload_successful"})
"""Gauges of which the lowest is told: all is well only where it is well everywhere."""
_MOST = frozenset(
    {
        "phoenixflight_capability_members",
        "phoenixflight_member_problems",
        "phoenixflight_members",
        "phoenixflight_ring_load_variation",
        "phoenixflight_ring_points",
    }
)
"""Gauges of which the highest is told, for each worker sees the same, or the worst counts.  Times are such, too."""

_Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""


@dataclass(slots=True)
class _Family:
    kind: str
    text: str
    samples: dict[_Key, float] = field(default_factory=dict)

    @property
    def adds_up(self) -> bool:
        return self.kind in ("counter", "histogram")


class MergedMetrics:
    """Adds up; what a worker had counted when it died stays counted, as of when it was last asked."""

    def __init__(self) -> None:
        self._departed: dict[str, _Family] = {}
        self._last: dict[str, dict[str, _Family]] = {}
        """By the worker's life."""

    def merge(self, expositions: Mapping[str, str | None], own: Iterable[Metric] = ()) -> bytes:
        """One exposition.

        Args:
            expositions: of each worker that lives, by a name that no other life of a worker has; ``None`` of one that
                did not answer, which counts as it was when it last did.
            own: families to be added.

        """
        for life in self._last.keys() - expositions.keys():
            _add(self._departed, self._last.pop(life), departed=True)
        merged: dict[str, _Family] = {}
        _add(merged, self._departed)
        for life, text in expositions.items():
            if text is not None:
                self._last[life] = _read(text)
            _add(merged, self._last.get(life, {}))
        return generate_latest(_Families([*map(_metric, merged, merged.values()), *own]))


class _Families:
    """What generate_latest takes."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _read(text: str) -> dict[str, _Family]:
    return {
        family.name: _Family(
            family.type,
            family.documentation,
            {(sample.name, tuple(sample.labels.items())): sample.value for sample in family.samples},
        )
        for family in text_string_to_metric_families(text)
    }


def _add(into: dict[str, _Family], families: Mapping[str, _Family], *, departed: bool = False) -> None:
    for name, family in families.items():
        if departed and not family.adds_up:
            continue
        found = into.setdefault(name, _Family(family.kind, family.text)).samples
        for key, value in family.samples.items():
            if key not in found:
                found[key] = value
            elif name in _LEAST:
                found[key] = min(found[key], value)
            elif family.adds_up or not (name in _MOST or name.endswith(("_seconds", "_info"))):
                found[key] += value
            else:
                found[key] = max(found[key], value)


def _metric(name: str, family: _Family) -> Metric:
    metric = Metric(name, family.text, family.kind)
    for (sample, labels), value in family.samples.items():
        metric.add_sample(sample, dict(labels), value)
    return metric
