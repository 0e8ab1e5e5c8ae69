"""From raw results to rows: medians over the rounds, their spread, ratios, and whether each target is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.plan import Plan

OURS, ENVOY, NAIVE = "ours", "envoy", "naive"
MIB = 2**20

RECORDS_PER_S = 5_000
_FED = 0.99
"""Of that rate: the last few of a window are not fed any more."""
_BEHIND_S = 0.2
"""So much may be unwritten when the feeding ends; up to 50 ms are gathered."""

Result = dict[str, Any]
Pick = Callable[[Result], float]


@dataclass(frozen=True, slots=True)
class Cell:
    """One proxy's number: the median over the rounds, and the extremes."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Target:
    """What a row is judged by; `met` is ``None`` without the numbers to judge by."""

    text: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of every proxy that it was taken of."""

    label: str
    unit: str
    cells: dict[str, Cell]
    to_envoy: float | None = None
    """Ours over Envoy's: the median of the rounds' ratios."""
    to_naive: float | None = None
    """Ours over the naive proxy's, likewise."""
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that one run found."""

    rounds: list[dict[str, Result]] = field(default_factory=list)
    """For each round, by proxy."""
    bodies: dict[str, dict[str, Result]] = field(default_factory=dict)
    """By proxy, then by protocol and direction."""
    events: dict[str, Result] = field(default_factory=dict)
    """Ours only: by protocol, and ``direct`` for the way without it."""
    idle: dict[str, Result] = field(default_factory=dict)
    """By proxy."""
    overload: Result = field(default_factory=dict)
    """Ours only: the peak, and what became of four times as much, by callers' manners."""
    everything: Result = field(default_factory=dict)
    """Ours only: rounds with everything on and off, and the recorder alone."""
    variants: list[dict[str, Result]] = field(default_factory=list)
    """For each round, by circumstance."""


def rows(measured: Measured, plan: Plan) -> list[Row]:
    """The table of a run."""
    handoffs = _handoffs(measured.rounds) if measured.rounds else []
    return [
        *handoffs,
        *_variants(measured.variants, plan),
        *_bodies(measured.bodies, plan),
        *_events(measured.events, plan),
        *_idle(measured.idle),
        *_overload(measured.overload),
        *_everything(measured.everything),
    ]


def _handoffs(rounds: list[dict[str, Result]]) -> list[Row]:
    def cells(pick: Pick) -> dict[str, Cell]:
        return {name: _cell([pick(one[name]) for one in rounds]) for name in rounds[0]}

    def row(label: str, unit: str, pick: Pick, *targets: Target) -> Row:
        return Row(label, unit, cells(pick), _ratio(rounds, ENVOY, pick), _ratio(rounds, NAIVE, pick), targets)

    def added(share: str, *targets: Target) -> Row:
        # A difference of quantiles can come out at nothing or below: only the medians are set against each other,
        # and never those of the naive proxy, which were taken at another rate.
        found = cells(lambda one: float(one[f"{share}_added_ms"]))
        return Row(f"latency added, {share}", "ms", found, _over(found, ENVOY), targets=targets)

    def cpu(protocol: str) -> Pick:
        return lambda one: float(one[protocol]["cpu_us"])

    h2, h1, naive = (
        _ratio(rounds, ENVOY, cpu("h2")),
        _ratio(rounds, ENVOY, cpu("h1")),
        _ratio(rounds, NAIVE, cpu("h2")),
    )
    return [
        row(
            "CPU per handoff, HTTP/2 in",
            "µs",
            cpu("h2"),
            _target("≤ 1.2 × Envoy", h2, 1.2),
            _target("≥ 40 × less than naive", naive, 1 / 40),
        ),
        row("CPU per handoff, HTTP/1.1 in", "µs", cpu("h1"), _target("≤ 0.8 × Envoy", h1, 0.8)),
        row("handoffs per second, HTTP/2 in", "1/s", lambda one: one["h2"]["per_s"]),
        row("handoffs per second, HTTP/1.1 in", "1/s", lambda one: one["h1"]["per_s"]),
        added("p50"),
        added("p99", _target("≤ 1.0 × Envoy", added("p99").to_envoy, 1.0)),
        row("RSS after load", "MiB", lambda one: one["h1"]["rss_bytes"] / MIB),
    ]


def _variants(rounds: list[dict[str, Result]], plan: Plan) -> list[Row]:
    """Handoffs over HTTP/2 under other circumstances, and how they stand to ours, or Envoy's, as they are."""

    def row(label: str, ours: str, theirs: str, limit: float) -> list[Row]:
        if not rounds or not rounds[0].keys() >= {ours, theirs}:
            return []
        cells = {
            OURS: _cell([one[ours]["cpu_us"] for one in rounds]),
            ENVOY: _cell([one[theirs]["cpu_us"] for one in rounds]),
        }
        ratio = median(one[ours]["cpu_us"] / one[theirs]["cpu_us"] for one in rounds)
        return [Row(label, "µs", cells, ratio, targets=(_target(f"≤ {limit} × Envoy", ratio, limit),))]

    def more(label: str, name: str, *, bound: bool = True) -> list[Row]:
        if not rounds or name not in rounds[0]:
            return []
        ratios = [one[name]["cpu_us"] / one[OURS]["cpu_us"] for one in rounds]
        targets = (_target("≤ 1.15", median(ratios), 1.15),) if bound else ()
        return [Row(label, "×", {OURS: _cell(ratios)}, targets=targets)]

    return [
        *row("CPU per handoff, HTTP/2 in, Envoy asking a policy server", OURS, "envoy-ext_authz", 0.5),
        *row("CPU per handoff, HTTP/2 in, mTLS to the agents", "ours-mtls", "envoy-mtls", 1.2),
        *_workers(rounds),
        *more("CPU per handoff, leases in Redis over leases in the process", "shared", bound=False),
        *more("CPU per handoff, 2,000 rules over 1", "rules"),
        *more("CPU per handoff, 5,000 agents over 8", "agents"),
        *more(f"CPU per handoff, {plan.held_streams:,} open streams over none", "streams"),
    ]


def _workers(rounds: list[dict[str, Result]]) -> list[Row]:
    """What two workers do with half a core each, over what one does with half a core."""
    if not rounds or "two-workers" not in rounds[0]:
        return []
    ratios = [one["two-workers"]["per_s"] / one["one-worker"]["per_s"] for one in rounds]
    target = Target("≥ 1.8", median(ratios) >= 1.8)
    label = "handoffs per second, 2 workers over 1, half a core for each"
    return [Row(label, "×", {OURS: _cell(ratios)}, targets=(target,))]


def _bodies(bodies: dict[str, dict[str, Result]], plan: Plan) -> list[Row]:
    size = f"{plan.body_bytes / 2**30:g} GiB"
    result = []
    for label, unit, pick, limit in (
        (f"RSS added by {size}", "MiB", lambda one: one["rss_growth"] / MIB, 32.0),
        ("CPU per GiB", "s", lambda one: one["cpu_s_per_gib"], None),
    ):
        for key in next(iter(bodies.values()), {}):
            cells = {name: _cell([pick(results[key])]) for name, results in bodies.items()}
            to_envoy = _over(cells, ENVOY)
            if limit:
                target = _target("< 32 MiB", _median(cells, OURS), limit, strict=True)
            else:
                target = _target("≤ 2.0 × Envoy", to_envoy, 2.0)
            result.append(Row(f"{label} {_way(key)}", unit, cells, to_envoy, targets=(target,)))
    return result


def _events(events: dict[str, Result], plan: Plan) -> list[Row]:
    result = []
    for protocol, found in events.items():
        if protocol != "direct":
            cells = {OURS: _cell([found["rss_growth"] / MIB])}
            bounds = [_target("< 60 MiB", cells[OURS].median, 60.0, strict=True)]
            if protocol == "h2":  # else each has a connection to itself, which counts as one
                bounds.append(_target("≤ 30 KiB each", found["rss_growth"] / plan.sse_streams / 1024, 30.0))
            label = f"RSS added by {plan.sse_streams:,} SSE streams, {_way(protocol)}"
            result.append(Row(label, "MiB", cells, targets=tuple(bounds)))
        for share in ("p50", "p99"):
            cells = {OURS: _cell([found[f"{share}_ms"]])}
            judged = share == "p99" and protocol != "direct"
            targets = (_target("≤ 5 ms", cells[OURS].median, 5.0),) if judged else ()
            result.append(Row(f"SSE event passed on, {_way(protocol)}, {share}", "ms", cells, targets=targets))
    return result


def _overload(found: Result) -> list[Row]:
    result = []
    for manners in ("honouring", "ignoring") if found else ():
        goodput, p99 = found[manners]["goodput_ratio"], found[manners]["p99_ratio"]
        held_to = manners == "honouring"
        for label, value, targets in (
            ("goodput over the peak", goodput, (Target("≥ 0.8", goodput >= 0.8),)),
            ("p99 over the unloaded one", p99, (_target("≤ 4", p99, 4.0),) if held_to else ()),
        ):
            cells = {OURS: _cell([value])}
            result.append(Row(f"4 × the load, callers {manners} retry-after: {label}", "×", cells, targets=targets))
    return result


def _everything(found: Result) -> list[Row]:
    if not found:
        return []
    rounds, recorder = found["rounds"], found["recorder"]
    ratios = [one[OURS]["cpu_us"] / one["off"]["cpu_us"] for one in rounds]
    lost = sum(one[OURS]["lost_records"] for one in rounds) + recorder["lost"]
    per_s = recorder["kept_per_s"]
    in_time = recorder["behind_s"] <= _BEHIND_S and not recorder["refusing"]
    kept_up = in_time and not recorder["lost"] and per_s >= _FED * RECORDS_PER_S

    def row(label: str, unit: str, values: list[float], *targets: Target) -> Row:
        return Row(label, unit, {OURS: _cell(values)}, targets=targets)

    return [
        row("everything on, CPU per handoff", "µs", [one[OURS]["cpu_us"] for one in rounds]),
        row("everything off, CPU per handoff", "µs", [one["off"]["cpu_us"] for one in rounds]),
        row("everything on over off, CPU per handoff", "×", ratios, _target("≤ 1.15", median(ratios), 1.15)),
        row("records kept beside traffic", "1/s", [per_s], Target(f"≥ {RECORDS_PER_S:,}, none lost", kept_up)),
        row(f"CPU of {RECORDS_PER_S:,} records a second", "% of a core", [recorder["cpu_share"] * 100]),
        row("records lost", "in all", [lost], _target("none", lost, 0)),
    ]


def _idle(idle: dict[str, Result]) -> list[Row]:
    if not idle:
        return []
    count = next(iter(idle.values()))["connections"]
    result = []
    for label, unit, pick in (
        ("RSS per idle mTLS connection", "KiB", lambda one: one["rss_per_connection"] / 1024),
        (f"p99 without {count:,} idle connections", "ms", lambda one: one["p99_alone_ms"]),
        (f"p99 beside {count:,} idle connections", "ms", lambda one: one["p99_beside_ms"]),
    ):
        cells = {name: _cell([pick(found)]) for name, found in idle.items()}
        targets = (_target("≤ 60 KiB", _median(cells, OURS), 60.0),) if unit == "KiB" else ()
        result.append(Row(label, unit, cells, _over(cells, ENVOY), targets=targets))
    return result


def _way(key: str) -> str:
    protocol, _, direction = key.partition(" ")
    name = {"h2": "HTTP/2 in", "http/1.1": "HTTP/1.1 in", "direct": "without a proxy"}[protocol]
    return f"{direction}, {name}" if direction else name


def _cell(values: list[float]) -> Cell:
    return Cell(median(values), min(values), max(values))


def _median(cells: dict[str, Cell], name: str) -> float | None:
    return cells[name].median if name in cells else None


def _over(cells: dict[str, Cell], other: str) -> float | None:
    ours, theirs = _median(cells, OURS), _median(cells, other)
    return ours / theirs if ours is not None and theirs is not None and theirs > 0 else None


def _ratio(rounds: list[dict[str, Result]], other: str, pick: Pick) -> float | None:
    if not rounds[0].keys() >= {OURS, other}:
        return None
    return median(pick(one[OURS]) / pick(one[other]) for one in rounds)


def _target(text: str, value: float | None, limit: float, *, strict: bool = False) -> Target:
    if value is None:
        return Target(text, None)
    return Target(text, value < limit if strict else value <= limit)
