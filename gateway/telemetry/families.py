"""Families whose label sets come at run time: plain numbers on the request's way, text when they are scraped.

A family has a bound, and what comes after is counted under ``other``.  What nothing happens to for `IDLE_S` is
forgotten at the next scrape; should it come again, it begins anew, which Prometheus takes for what it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from gateway.telemetry.exposition import ROWS, header, labelled

IDLE_S: Final = 600.0
OTHER: Final = "other"


class Series:
    """One label set of a counter."""

    __slots__ = ("count", "key", "line", "seen", "since")

    def __init__(self, key: tuple[str, ...], line: str) -> None:
        self.count = 0
        self.key = key
        self.line = line
        """Name and labels, as they are written."""
        self.seen = 0
        """At the last scrape; since then, or earlier, it has been so."""
        self.since = 0.0


class RunningCounter:
    """A counter by labels."""

    __slots__ = ("_keeps_last", "_labels", "_most", "_name", "_series", "_text")

    def __init__(self, name: str, text: str, labels: tuple[str, ...], most: int, *, keeps_last: bool = False) -> None:
        """Nothing is counted yet.

        Args:
            name: without ``_total``.
            text: what it counts.
            labels: their names.
            most: label sets; beyond them, it is ``other``.
            keeps_last: the last label is of a closed set, and never ``other``.

        """
        self._name = name
        self._text = text
        self._labels = labels
        self._most = most
        self._keeps_last = keeps_last
        self._series: dict[tuple[str, ...], Series] = {}

    def __len__(self) -> int:
        """How many label sets there are."""
        return len(self._series)

    def add(self, key: tuple[str, ...]) -> None:
        """Count one, with these values of the labels."""
        series = self._series.get(key)
        if series is None:
            series = self._new(key)
        series.count += 1

    def _new(self, key: tuple[str, ...]) -> Series:
        if len(self._series) >= self._most:
            last = key[-1] if self._keeps_last else OTHER
            key = (*(OTHER,) * (len(key) - 1), last)
            found = self._series.get(key)
            if found is not None:
                return found
        series = self._series[key] = Series(key, labelled(self._name + "_total", zip(self._labels, key, strict=True)))
        return series

    def pieces(self, now: float, openmetrics: bool) -> Iterator[str]:
        """The family's text, as of `now`, by a clock in seconds."""
        yield header(self._name, "counter", self._text, openmetrics=openmetrics)
        rows = list(self._series.values())
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            yield "".join([f"{each.line} {each.count}.0\n" for each in some if self._lasts(each, now)])

    def _lasts(self, series: Series, now: float) -> bool:
        """Whether the series is still to be told of."""
        if series.count != series.seen:
            series.seen = series.count
            series.since = now
        elif now - series.since >= IDLE_S:
            if self._series.get(series.key) is series:
                del self._series[series.key]
            return False
        return True


class Histogram:
    """Observations in seconds."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_lines", "_seen", "_since", "_total")

    def __init__(self, bounds: tuple[float, ...], name: str, labels: tuple[tuple[str, str], ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._exemplars: dict[int, str] = {}
        """The newest of each bucket that has one, as they are written."""
        self._seen = 0
        self._since = 0.0
        limits = [*(repr(float(bound)) for bound in bounds), "+Inf"]
        self._lines = [
            *(labelled(f"{name}_bucket", (*labels, ("le", limit))) for limit in limits),
            labelled(f"{name}_count", labels),
            labelled(f"{name}_sum", labels),
        ]

    def observe(self, seconds: float, trace_id: str, at: float) -> None:
        """Count one observation.

        Args:
            seconds: how long it was.
            trace_id: of the trace that tells more; empty when none was kept.
            at: when it was, in seconds since the epoch.

        """
        bucket = bisect_left(self._bounds, seconds)
        self._counts[bucket] += 1
        self._total += seconds
        if trace_id:
            self._exemplars[bucket] = f' # {{trace_id="{trace_id}"}} {seconds!r} {at:.3f}'

    def idle(self, now: float) -> bool:
        """Whether nothing was observed for `IDLE_S`."""
        count = sum(self._counts)
        if count != self._seen:
            self._seen = count
            self._since = now
        return now - self._since >= IDLE_S

    def text(self, openmetrics: bool) -> str:
        """Its lines."""
        running = 0
        lines: list[str] = []
        for bucket, count in enumerate(self._counts):
            running += count
            exemplar = self._exemplars.get(bucket, "") if openmetrics else ""
            lines.append(f"{self._lines[bucket]} {running}.0{exemplar}\n")
        lines.append(f"{self._lines[-2]} {running}.0\n")
        lines.append(f"{self._lines[-1]} {self._total!r}\n")
        return "".join(lines)


class Histograms:
    """A histogram by one label, or without any."""

    __slots__ = ("_bounds", "_label", "_lasting", "_most", "_name", "_series", "_text")

    def __init__(
        self, name: str, text: str, label: str, bounds: tuple[float, ...], most: int, lasting: tuple[str, ...] = ()
    ) -> None:
        """Nothing is observed yet.

        Args:
            name: of the family.
            text: what is observed.
            label: its name, or empty.
            bounds: of the buckets, in seconds.
            most: label values; beyond them, it is ``other``.
            lasting: those that are there from the beginning, and stay.

        """
        self._name = name
        self._text = text
        self._label = label
        self._bounds = bounds
        self._most = most
        self._lasting = lasting
        self._series: dict[str, Histogram] = {}
        for value in lasting:
            self._new(value)

    def __len__(self) -> int:
        """How many label values there are."""
        return len(self._series)

    def of(self, value: str) -> Histogram:
        """The histogram with this value of the label."""
        found = self._series.get(value)
        return found if found is not None else self._new(value)

    def _new(self, value: str) -> Histogram:
        if len(self._series) >= self._most:
            value = OTHER
            found = self._series.get(value)
            if found is not None:
                return found
        labels = ((self._label, value),) if self._label else ()
        made = self._series[value] = Histogram(self._bounds, self._name, labels)
        return made

    def pieces(self, now: float, openmetrics: bool) -> Iterator[str]:
        """The family's text, as of `now`, by a clock in seconds."""
        yield header(self._name, "histogram", self._text, openmetrics=openmetrics)
        for value, histogram in list(self._series.items()):
            if value in self._lasting or not histogram.idle(now):
                yield histogram.text(openmetrics)
            elif self._series.get(value) is histogram:
                del self._series[value]
