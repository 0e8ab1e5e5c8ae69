"""What Prometheus scrapes, as text: the plain format 0.0.4, or OpenMetrics 1.0, which has exemplars.

Text is made piece by piece, so that a large scrape never holds up the event loop.
https://prometheus.io/docs/instrumenting/exposition_formats, https://prometheus.io/docs/specs/om/open_metrics_spec
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from time import perf_counter

from prometheus_client.metrics_core import Metric

SLICE_S = 0.005
"""After so long the event loop has its turn."""
ROWS = 500
"""Lines in a piece, about."""
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = "# EOF\n"
"""Of OpenMetrics."""

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def asks_for_openmetrics(accept: str) -> bool:
    """Whether an ``accept`` field prefers OpenMetrics to plain text (RFC 9110 section 12.5.1)."""
    wanted = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for offer in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in offer.split(";"))
        if kind in wanted:
            wanted[kind] = max(wanted[kind], _quality(parameters))
    return wanted["application/openmetrics-text"] > 0 and (
        wanted["application/openmetrics-text"] >= wanted["text/plain"]
    )


def _quality(parameters: list[str]) -> float:
    for name, _, value in (each.partition("=") for each in parameters):
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def labelled(name: str, labels: Iterable[tuple[str, str]]) -> str:
    """A sample's name and labels, in one order for all who write them."""
    written = ",".join([f'{label}="{value.translate(_ESCAPES)}"' for label, value in sorted(labels)])
    return f"{name}{{{written}}}" if written else name


def header(name: str, kind: str, text: str, *, openmetrics: bool) -> str:
    """The lines before a family's samples; `name` is a counter's without ``_total``."""
    if kind == "counter" and not openmetrics:
        name += "_total"
    return f"# HELP {name} {text.translate(_ESCAPES)}\n# TYPE {name} {kind}\n"


def pieces(metric: Metric, *, openmetrics: bool) -> Iterator[str]:
    """A counter, gauge or histogram of prometheus-client."""
    yield header(metric.name, metric.type, metric.documentation, openmetrics=openmetrics)
    samples = metric.samples
    for start in range(0, len(samples), ROWS):
        some = samples[start : start + ROWS]
        yield "".join([f"{labelled(each.name, each.labels.items())} {float(each.value)!r}\n" for each in some])


async def in_slices(made: Iterator[bytes]) -> bytes:
    """All of `made`, with a turn for the event loop after every `SLICE_S`."""
    whole: list[bytes] = []
    until = perf_counter() + SLICE_S
    for piece in made:
        whole.append(piece)
        if perf_counter() >= until:
            await asyncio.sleep(0)
            until = perf_counter() + SLICE_S
    return b"".join(whole)
