"""What a person reads at the end: the table, and what to know when reading it."""

from __future__ import annotations

from statistics import median

from rich.console import Console
from rich.table import Table

from bench.plan import Plan
from bench.proxy import Kind
from bench.table import NAIVE, Cell, Measured, Row

_SATURATED = 0.95
_DISTURBED = 0.05


def show(console: Console, kinds: list[Kind], table: list[Row], notes: list[str]) -> None:
    """Print the table and the notes."""
    grid = Table(title="medians over the rounds (lowest–highest)", title_justify="left")
    grid.add_column("")
    for kind in kinds:
        grid.add_column(kind.name, justify="right")
    for heading in ("ours / envoy", "ours / naive"):
        grid.add_column(heading, justify="right")
    grid.add_column("target")
    for row in table:
        cells = [cell(row.cells.get(kind.name)) for kind in kinds]
        marks = "\n".join(f"{_mark(target.met)} {target.text}" for target in row.targets)
        grid.add_row(f"{row.label} ({row.unit})", *cells, ratio(row.to_envoy), ratio(row.to_naive), marks)
    console.print(grid)
    for note in notes:
        console.print(f"· {note}", markup=False, highlight=False)


def notes(kinds: list[Kind], measured: Measured, plan: Plan, machine: dict[str, object]) -> list[str]:
    """What a reader must know to read the numbers rightly."""
    told = [
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}; "
        f"{machine['date']}.",
        f"Closed loop: {plan.h2_connections} HTTP/2 connections × 16 streams, or {plan.h1_connections} HTTP/1.1 "
        f"connections, {plan.closed_s:g} s a round. Latency: Poisson arrivals over HTTP/2, from the intended send "
        f"time, less the same without a proxy.",
    ]
    if not machine["pinned"]:
        told.append("Fewer than two cores: nothing was pinned, and the load ran beside what it measured.")
    told += [
        f"{kind.name} is {kind.title}; its latency is measured at {kind.rate:g}/s, since it cannot serve 500/s."
        for kind in kinds
        if kind.name == NAIVE
    ]
    told += _core_notes(kinds, measured, machine)
    errors = sum(
        one[kind.name][part]["errors"] for one in measured.rounds for kind in kinds for part in ("h2", "h1", "rate")
    )
    told.append(f"Requests not answered with 200: {errors}.")
    return told


def _core_notes(kinds: list[Kind], measured: Measured, machine: dict[str, object]) -> list[str]:
    """Whether each proxy was the bottleneck, and whether it really had its core to itself."""
    told = []
    lost = []
    for kind in kinds:
        for protocol, name in (("h2", "HTTP/2"), ("h1", "HTTP/1.1")):
            windows = [one[kind.name][protocol] for one in measured.rounds]
            lost += [window["core_lost"] for window in windows]
            used = median(window["core_used"] for window in windows)
            if used < _SATURATED:
                told.append(
                    f"{kind.name} over {name} used {used:.0%} of its core: something else was the limit, so its "
                    "handoffs per second are a lower bound; CPU per handoff holds."
                )
    if machine["pinned"] and max(lost) > _DISTURBED:
        told.append(
            f"OTHER PROCESSES used up to {max(lost):.0%} of the proxies' core (median {median(lost):.0%}): "
            "latencies are not to be trusted; repeat on an idle machine."
        )
    return told


def cell(found: Cell | None) -> str:
    """As it stands in a table."""
    if found is None:
        return ""
    if found.low == found.high:
        return _number(found.median)
    return f"{_number(found.median)} ({_number(found.low)}–{_number(found.high)})"


def _number(value: float) -> str:
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def ratio(value: float | None) -> str:
    """As it stands in a table."""
    if value is None:
        return ""
    return f"1/{1 / value:.0f}" if 0 < value < 0.1 else f"{value:.2f} ×"


def _mark(met: bool | None) -> str:
    return {True: "[green]✓[/]", False: "[red]✗[/]", None: "–"}[met]
