"""The metrics of several workers as those of one gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import add
from time import monotonic

from prometheus_client.metrics_core import Metric

from gateway.telemetry.exposition import END, header, pieces
from gateway.telemetry.families import IDLE_S

_LEAST = frozenset({"phoenixflight_last_reload_successful", "phoenixflight_ready"})
"""Gauges of which the lowest is told: all is well only where it is well everywhere."""
_MOST = frozenset(
    {
        "phoenixflight_capability_members",
        "phoenixflight_member_problems",
        "phoenixflight_members",
        "phoenixflight_memory_used_ratio",
        "phoenixflight_overload_level",
        "phoenixflight_recorder_trouble",
        "phoenixflight_restart_needed",
        "phoenixflight_revocations",
        "phoenixflight_revocations_sync_age_seconds",
        "phoenixflight_ring_load_variation",
        "phoenixflight_ring_points",
    }
)
"""Gauges of which the highest is told, for each worker sees the same, or the worst counts.  Times are such, too."""


@dataclass(slots=True)
class _Family:
    kind: str
    text: str
    samples: dict[str, float] = field(default_factory=dict)
    """By name and labels, as they are written: all workers write them in one way."""
    exemplars: dict[str, str] = field(default_factory=dict)
    """By the same."""

    @property
    def adds_up(self) -> bool:
        return self.kind in ("counter", "histogram")


_Families = dict[str, _Family]


class MergedMetrics:
    """Adds up; what a worker had counted when it died stays counted, as of when it was last asked.

    So does what a worker has forgotten because nothing happened to it; it is forgotten here once no worker knows it,
    and none has for `IDLE_S`.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last: dict[str, _Families] = {}
        """By the worker's life."""
        self._departed: _Families = {}
        self._left: dict[str, float] = {}
        """When each sample of those was last known to a worker."""

    def merge(
        self, expositions: Mapping[str, str | None], own: Iterable[Metric] = (), *, openmetrics: bool = False
    ) -> bytes:
        """One exposition.

        Args:
            expositions: of each worker that lives, by a name that no other life of a worker has; ``None`` of one that
                did not answer, which counts as it was when it last did.
            own: families to be added.
            openmetrics: it is to be OpenMetrics, whatever `expositions` are.

        """
        now = self._clock()
        for life in self._last.keys() - expositions.keys():
            self._keep(self._last.pop(life), {}, now)
        for life, text in expositions.items():
            if text is not None:
                fresh = _read(text)
                self._keep(self._last.get(life, {}), fresh, now)
                self._last[life] = fresh
        merged: _Families = {}
        for life in expositions:
            _add(merged, self._last.get(life, {}))
        self._forget(merged, now)
        _add(merged, self._departed)
        written = [_written(name, family, openmetrics=openmetrics) for name, family in merged.items()]
        written += (piece for metric in own for piece in pieces(metric, openmetrics=openmetrics))
        return "".join([*written, END if openmetrics else ""]).encode()

    def _keep(self, before: _Families, after: _Families, now: float) -> None:
        """A worker has told `after`, or died: what it told before and tells no more stays counted."""
        for name, family in before.items():
            if not family.adds_up:
                continue
            there = after[name].samples if name in after else {}
            if family.samples.keys() <= there.keys():
                continue
            gone = {sample: value for sample, value in family.samples.items() if sample not in there}
            _add(self._departed, {name: _Family(family.kind, family.text, gone)})
            self._left.update(dict.fromkeys(gone, now))

    def _forget(self, living: _Families, now: float) -> None:
        for name, family in self._departed.items():
            there = living[name].samples if name in living else {}
            for sample in list(family.samples):
                if sample not in there and now - self._left[sample] >= IDLE_S:
                    del family.samples[sample], self._left[sample]


def _read(text: str) -> _Families:
    """What a worker tells, in either format."""
    families: _Families = {}
    for block in f"\n{text}".split("\n# HELP ")[1:]:
        about, kind, *lines = block.split("\n")
        name, kind = kind.split(" ")[2:]
        family = families[name.removesuffix("_total") if kind == "counter" else name] = _Family(
            kind, about.partition(" ")[2]
        )
        if kind == "histogram":
            _part_with_exemplars(lines, family)
        samples = (line for line in lines if line and line[0] != "#")
        family.samples = {line[: (end := line.rfind(" "))]: float(line[end:]) for line in samples}
    return families


def _part_with_exemplars(lines: list[str], family: _Family) -> None:
    """Leave the sample in each line, and put its exemplar by."""
    for number, line in enumerate(lines):
        # No capability and no phase has such a text.
        lines[number], _, exemplar = line.partition(" # ")
        if exemplar:
            family.exemplars[lines[number].rpartition(" ")[0]] = exemplar


def _add(into: _Families, families: _Families) -> None:
    for name, family in families.items():
        known = into.get(name)
        if known is None:
            into[name] = replace(family, samples=family.samples.copy(), exemplars=family.exemplars.copy())
            continue
        found, together = known.samples, _together(name, family)
        for sample, value in family.samples.items():
            found[sample] = together(found[sample], value) if sample in found else value
        for sample, exemplar in family.exemplars.items():
            other = known.exemplars.get(sample)
            if other is None or _time(exemplar) > _time(other):
                known.exemplars[sample] = exemplar


def _together(name: str, family: _Family) -> Callable[[float, float], float]:
    """What two workers' numbers are together."""
    if name in _LEAST:
        return min
    if family.adds_up or not (name in _MOST or name.endswith(("_seconds", "_info"))):
        return add
    return max


def _time(exemplar: str) -> float:
    return float(exemplar.rpartition(" ")[2])


def _written(name: str, family: _Family, *, openmetrics: bool) -> str:
    return "".join([header(name, family.kind, family.text, openmetrics=openmetrics), *_lines(family, openmetrics)])


def _lines(family: _Family, openmetrics: bool) -> Iterator[str]:
    exemplars = family.exemplars if openmetrics else {}
    for sample, value in family.samples.items():
        exemplar = exemplars.get(sample)
        yield f"{sample} {value!r} # {exemplar}\n" if exemplar else f"{sample} {value!r}\n"
